// Judge of a TCG-CSR-IDEVID: Flight Control's own reader. scripts/test-evidence copies its files from the
// module of a fixed version into the folder flightctl, because the package is internal to that module.
package main

import (
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"

	tpm "devid-judge-flightctl/flightctl"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	check(err)
	return content
}

func sized(bytes []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(bytes))), bytes...)
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "judge CSR ROOTS CHALLENGE SECRET")
		os.Exit(2)
	}
	structure := read(os.Args[1])
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read(os.Args[2])) {
		check(fmt.Errorf("no root in %s", os.Args[2]))
	}
	check(tpm.VerifyTCGCSRChainOfTrustWithRoots(structure, roots))
	parsed, err := tpm.ParseTCGCSR(structure)
	check(err)
	payload := parsed.CSRContents.Payload
	check(tpm.VerifyTCGCSRSigningChain(structure, payload.AttestPub))

	// The request inside is what Flight Control signs.
	request, isTPM, err := tpm.NormalizeEnrollmentCSR(string(structure))
	check(err)
	if !isTPM {
		check(fmt.Errorf("not taken for a TCG-CSR"))
	}
	block, _ := pem.Decode(request)
	if block == nil {
		check(fmt.Errorf("prodCaData is no PEM"))
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	check(err)
	check(asked.CheckSignature())

	// Its challenge, in the form of tpm2_makecredential.
	challenge, err := tpm.CreateCredentialChallenge(payload.EkCert, payload.AttestPub)
	check(err)
	document := []byte{0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1}
	document = append(document, sized(challenge.CredentialBlob)...)
	document = append(document, sized(challenge.EncryptedSecret)...)
	check(os.WriteFile(os.Args[3], document, 0o644))
	check(os.WriteFile(os.Args[4], challenge.ExpectedSecret, 0o600))
}
