// Judges of evidence by other people's code. Each verb reads files that devid wrote, and exits 0 if the
// code of the other project accepts them.
package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"github.com/google/go-attestation/attest"
	tpm2legacy "github.com/google/go-tpm/legacy/tpm2"
	"github.com/google/go-tpm/legacy/tpm2/credactivation"
	"github.com/google/go-tpm/tpm2"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"github.com/openconfig/attestz/service/biz"
)

type certified struct {
	Public    []byte `json:"public"`
	Certify   []byte `json:"certify"`
	Signature []byte `json:"signature"`
}

type bundle struct {
	EkPublic       []byte   `json:"ekPublic"`
	EkCertificates [][]byte `json:"ekCertificates"`
	AttestationKey struct {
		Public       []byte   `json:"public"`
		Certificates [][]byte `json:"certificates"`
	} `json:"attestationKey"`
	Key certified `json:"key"`
}

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

func readBundle(path string) bundle {
	var evidence bundle
	check(json.Unmarshal(read(path), &evidence))
	return evidence
}

// certify: go-attestation's verifier of TPM2_Certify.
func certify(path string) {
	evidence := readBundle(path)
	area, err := tpm2legacy.DecodePublic(evidence.AttestationKey.Public)
	check(err)
	key, err := area.Key()
	check(err)
	signature, err := tpm2legacy.DecodeSignature(bytes.NewBuffer(evidence.Key.Signature))
	check(err)
	var algorithm tpm2legacy.Algorithm
	if signature.ECC != nil {
		algorithm = signature.ECC.HashAlg
	} else {
		algorithm = signature.RSA.HashAlg
	}
	hash, err := algorithm.Hash()
	check(err)
	parameters := attest.CertificationParameters{
		Public:            evidence.Key.Public,
		CreateAttestation: evidence.Key.Certify,
		CreateSignature:   evidence.Key.Signature,
	}
	check(parameters.Verify(attest.VerifyOpts{Public: key, Hash: hash}))
	for at := range evidence.Key.Certify {
		changed := bytes.Clone(evidence.Key.Certify)
		changed[at] ^= 1
		parameters.CreateAttestation = changed
		if parameters.Verify(attest.VerifyOpts{Public: key, Hash: hash}) == nil {
			check(fmt.Errorf("go-attestation accepts a changed byte %d", at))
		}
	}
}

// challenge: a challenge by go-tpm's MakeCredential, in devid's document; the secret goes to another
// file.
func challenge(path, out, secretFile string) {
	evidence := readBundle(path)
	area, err := tpm2legacy.DecodePublic(evidence.AttestationKey.Public)
	check(err)
	name, err := area.Name()
	check(err)
	var ek crypto.PublicKey
	if len(evidence.EkCertificates) > 0 {
		certificate, err := x509.ParseCertificate(evidence.EkCertificates[0])
		check(err)
		ek = certificate.PublicKey
	}
	secret := make([]byte, 32)
	_, err = rand.Read(secret)
	check(err)
	blob, encrypted, err := credactivation.Generate(name.Digest, ek, 16, secret)
	check(err)
	info, err := x509.MarshalPKIXPublicKey(ek)
	check(err)
	nameBytes, err := name.Encode()
	check(err)
	document, err := json.MarshalIndent(map[string]string{
		"format":             "devid-challenge/1",
		"id":                 base64.StdEncoding.EncodeToString(secret[:8]),
		"attestationKeyName": base64.StdEncoding.EncodeToString(nameBytes[2:]),
		"endorsementKey":     base64.StdEncoding.EncodeToString(info),
		"credential":         base64.StdEncoding.EncodeToString(blob[2:]),
		"secret":             base64.StdEncoding.EncodeToString(encrypted[2:]),
	}, "", "  ")
	check(err)
	check(os.WriteFile(out, document, 0o600))
	check(os.WriteFile(secretFile, []byte(base64.StdEncoding.EncodeToString(secret)), 0o600))
}

// tcgcsr: what attestz does with the answer to GetIdevidCsr.
func tcgcsr(contentsFile, signatureFile string) {
	utils := &biz.DefaultTPM20Utils{}
	contents := read(contentsFile)
	parsed, err := utils.ParseTCGCSRIDevIDContent(contents)
	check(err)
	iak, err := utils.VerifyIAKAttributes(tpm2.Marshal(tpm2.New2B(parsed.IAKPub)))
	check(err)
	check(utils.VerifyTPMTSignature(tpm2.Marshal(parsed.SignCertifyInfo), &parsed.SignCertifyInfoSignature, iak))
	check(utils.VerifyCertifyInfo(&parsed.SignCertifyInfo, &parsed.IDevIDPub))
	check(utils.VerifyIdevidAttributes(&parsed.IDevIDPub, epb.KeyTemplate_KEY_TEMPLATE_ECC_NIST_P384))
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](read(signatureFile))
	check(err)
	check(utils.VerifyTPMTSignature(contents, signature, &parsed.IDevIDPub))
	fmt.Println(parsed.ProdModel, parsed.ProdSerial)
}

func main() {
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 2 && arguments[0] == "certify":
		certify(arguments[1])
	case len(arguments) == 4 && arguments[0] == "challenge":
		challenge(arguments[1], arguments[2], arguments[3])
	case len(arguments) == 3 && arguments[0] == "tcg-csr":
		tcgcsr(arguments[1], arguments[2])
	case len(arguments) >= 4 && arguments[0] == "enrollz":
		enrollz(arguments[1], arguments[2], arguments[3:])
	case len(arguments) == 4 && arguments[0] == "bootz":
		bootz(arguments[1], arguments[2], arguments[3])
	default:
		fmt.Fprintln(os.Stderr, "judge certify BUNDLE | challenge BUNDLE OUT SECRET | tcg-csr CONTENTS SIGNATURE | "+
			"enrollz ek|ppk|certificates|rotation DEVID FOLDER... | bootz idevid|hmac DEVID FOLDER")
		os.Exit(2)
	}
}
