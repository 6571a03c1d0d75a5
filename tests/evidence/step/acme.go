package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	client "golang.org/x/crypto/acme"
)

// enroll: a certificate from an ACME server by device-attest-01. The command gets the key authorization in
// KEY_AUTHORIZATION, and writes the attestation object to standard output.
func enroll(directory, rootsFile, identifier, requestFile, certificateFile string, command []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(rootsFile))
	server := &client.Client{
		Key:          key,
		DirectoryURL: directory,
		HTTPClient: &http.Client{
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
		},
	}
	_, err = server.Register(ctx, &client.Account{}, client.AcceptTOS)
	check(err)
	order, err := server.AuthorizeOrder(ctx, []client.AuthzID{
		{Type: "permanent-identifier", Value: identifier},
	})
	check(err)
	authorization, err := server.GetAuthorization(ctx, order.AuthzURLs[0])
	check(err)
	var challenge *client.Challenge
	for _, one := range authorization.Challenges {
		if one.Type == "device-attest-01" {
			challenge = one
		}
	}
	if challenge == nil {
		check(fmt.Errorf("the server offers no device-attest-01"))
	}
	thumbprint, err := client.JWKThumbprint(key.Public())
	check(err)
	attest := exec.CommandContext(ctx, command[0], command[1:]...)
	attest.Env = append(os.Environ(), "KEY_AUTHORIZATION="+challenge.Token+"."+thumbprint)
	attest.Stderr = os.Stderr
	statement, err := attest.Output()
	check(err)
	challenge.Payload, err = json.Marshal(map[string]string{
		"attObj": base64.RawURLEncoding.EncodeToString(statement),
	})
	check(err)
	accepted, err := server.Accept(ctx, challenge)
	check(err)
	if accepted.Status != client.StatusValid {
		check(fmt.Errorf("the challenge is %s: %v", accepted.Status, accepted.Error))
	}
	_, err = server.WaitAuthorization(ctx, authorization.URI)
	check(err)
	order, err = server.WaitOrder(ctx, order.URI)
	check(err)
	chain, _, err := server.CreateOrderCert(ctx, order.FinalizeURL, read(requestFile), true)
	check(err)
	var text []byte
	for _, der := range chain {
		block := pem.Block{Type: "CERTIFICATE", Bytes: der}
		text = append(text, pem.EncodeToMemory(&block)...)
	}
	check(os.WriteFile(certificateFile, text, 0o644))
}
