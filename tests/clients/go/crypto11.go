package main

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"

	"github.com/ThalesGroup/crypto11"
)

type crypto11Token struct{ context *crypto11.Context }

func openCrypto11() (token, error) {
	pin := os.Getenv("PIN")
	context, err := crypto11.Configure(&crypto11.Config{Path: os.Getenv("MODULE"), TokenLabel: os.Getenv("TOKEN_LABEL"),
		Pin: pin, LoginNotSupported: pin == ""})
	return &crypto11Token{context}, err
}

func (t *crypto11Token) key() (crypto.Signer, error) {
	key, err := t.context.FindKeyPair(nil, []byte(os.Getenv("KEY_LABEL")))
	if err == nil && key == nil {
		err = errors.New("not found")
	}
	if err != nil {
		return nil, err
	}
	// The way of agents that take every identity there is.
	paired, err := t.context.FindAllPairedCertificates()
	if err == nil && len(paired) == 0 {
		err = errors.New("no key was paired with a certificate")
	}
	return key, err
}

func (t *crypto11Token) generate() error {
	key, err := t.context.GenerateECDSAKeyPairWithLabel([]byte("crypto11"), []byte("made by crypto11"), elliptic.P256())
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte("hello"))
	_, err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
	return errors.Join(err, key.Delete())
}

func (t *crypto11Token) close() error { return t.context.Close() }
