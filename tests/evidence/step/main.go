// Judge of an ACME attestation statement: step-ca's own validation of device-attest-01, and a client for a
// server of step-ca.
package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"

	"github.com/smallstep/certificates/acme"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"
)

const token = "bm90LWEtc2VjcmV0LWJ1dC1hLXRva2Vu"

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

// authorization: makes an account's key, and prints the key authorization of the challenge.
func authorization(keyFile string) {
	jwk, err := jose.GenerateJWK("EC", "P-256", "ES256", "sig", "", 0)
	check(err)
	text, err := json.Marshal(jwk)
	check(err)
	check(os.WriteFile(keyFile, text, 0o600))
	said, err := acme.KeyAuthorization(token, jwk)
	check(err)
	fmt.Print(said)
}

// validate: whether the statement is right for this identifier, and its attestation key leads to these
// roots.
func validate(keyFile, statementFile, rootsFile, identifier string) {
	var jwk jose.JSONWebKey
	check(json.Unmarshal(read(keyFile), &jwk))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read(rootsFile)) {
		check(fmt.Errorf("no root in %s", rootsFile))
	}
	ctx := acme.NewProvisionerContext(context.Background(), &acme.MockProvisioner{
		MisAttFormatEnabled: func(_ context.Context, format provisioner.ACMEAttestationFormat) bool {
			return format == "tpm"
		},
		MgetAttestationRoots: func() (*x509.CertPool, bool) { return roots, true },
	})
	db := &acme.MockDB{
		MockGetAuthorization: func(context.Context, string) (*acme.Authorization, error) {
			return &acme.Authorization{}, nil
		},
		MockUpdateAuthorization: func(context.Context, *acme.Authorization) error { return nil },
		MockUpdateChallenge:     func(context.Context, *acme.Challenge) error { return nil },
	}
	challenge := &acme.Challenge{
		Type:   acme.DEVICEATTEST01,
		Status: acme.StatusPending,
		Token:  token,
		Value:  identifier,
	}
	payload, err := json.Marshal(map[string]string{
		"attObj": base64.RawURLEncoding.EncodeToString(read(statementFile)),
	})
	check(err)
	check(challenge.Validate(ctx, db, &jwk, payload))
	if challenge.Status != acme.StatusValid {
		check(fmt.Errorf("status %s: %+v", challenge.Status, challenge.Error))
	}
}

func main() {
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 2 && arguments[0] == "authorization":
		authorization(arguments[1])
	case len(arguments) == 5 && arguments[0] == "validate":
		validate(arguments[1], arguments[2], arguments[3], arguments[4])
	case len(arguments) > 6 && arguments[0] == "enroll":
		enroll(arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], arguments[6:])
	default:
		fmt.Fprintln(os.Stderr, "judge authorization KEY | validate KEY STATEMENT ROOTS IDENTIFIER | "+
			"enroll DIRECTORY ROOTS IDENTIFIER REQUEST CERTIFICATE COMMAND...")
		os.Exit(2)
	}
}
