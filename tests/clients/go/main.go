// Signs with a key of a PKCS#11 token, and makes TLS connections with it as a client and as a server.
//
//	client LIBRARY sign MESSAGE SIGNATURE [pss]     SHA-256
//	client LIBRARY connect PORT 1.2|1.3 COUNT       one process, COUNT handshakes
//	client LIBRARY serve 1.2|1.3                    prints its port, serves until it is ended
//	client LIBRARY generate                         makes a key pair, signs with it, destroys it
//
// LIBRARY is crypto11 or miekg. The environment names the token, as tests/clients/lib.sh says.
package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
)

// A token is what a library makes of MODULE and TOKEN_LABEL.
type token interface {
	// The key with KEY_LABEL.
	key() (crypto.Signer, error)
	generate() error
	close() error
}

var tokens = map[string]func() (token, error){"crypto11": openCrypto11, "miekg": openMiekg}
var protocols = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func run(library, verb string, arguments []string) error {
	opened, err := tokens[library]()
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if verb == "generate" {
		return errors.Join(opened.generate(), opened.close())
	}
	key, err := opened.key()
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	switch verb {
	case "sign":
		err = sign(key, arguments)
	case "connect":
		err = connect(key, arguments)
	case "serve":
		err = serve(key, arguments)
	default:
		err = fmt.Errorf("no verb %q", verb)
	}
	return errors.Join(err, opened.close())
}

func sign(key crypto.Signer, arguments []string) error {
	message, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	digest := sha256.Sum256(message)
	var options crypto.SignerOpts = crypto.SHA256
	if len(arguments) > 2 {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	signature, err := key.Sign(rand.Reader, digest[:], options)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	return os.WriteFile(arguments[1], signature, 0o600)
}

// The device's certificate and its issuer's, with the key.
func identity(key crypto.Signer) (tls.Certificate, error) {
	text, err := os.ReadFile(os.Getenv("CHAIN"))
	if err != nil {
		return tls.Certificate{}, err
	}
	certificate := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	return certificate, nil
}

func connect(key crypto.Signer, arguments []string) error {
	certificate, err := identity(key)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(os.Getenv("PEER_CA"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	protocol := protocols[arguments[1]]
	configuration := &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{certificate},
		MinVersion: protocol, MaxVersion: protocol}
	count, err := strconv.Atoi(arguments[2])
	if err != nil {
		return err
	}
	for i := range count {
		connection, err := tls.Dial("tcp", "127.0.0.1:"+arguments[0], configuration)
		if err != nil {
			return fmt.Errorf("handshake %d: %w", i+1, err)
		}
		fmt.Fprint(connection, "GET / HTTP/1.0\r\n\r\n")
		answer, err := io.ReadAll(connection)
		connection.Close()
		if !strings.Contains(string(answer), "Client certificate") {
			return fmt.Errorf("handshake %d: the server saw no certificate: %w", i+1, err)
		}
	}
	fmt.Printf("%d handshakes by TLS %s\n", count, arguments[1])
	return nil
}

func serve(key crypto.Signer, arguments []string) error {
	certificate, err := identity(key)
	if err != nil {
		return err
	}
	protocol := protocols[arguments[0]]
	configuration := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: protocol, MaxVersion: protocol}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", configuration)
	if err != nil {
		return err
	}
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintln(connection, "welcome")
		connection.Close()
	}
}
