package main

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"

	"github.com/miekg/pkcs11"
)

// A session of miekg/pkcs11, which is the C interface and no more.
type miekgToken struct {
	module  *pkcs11.Ctx
	session pkcs11.SessionHandle
}

func openMiekg() (token, error) {
	module := pkcs11.New(os.Getenv("MODULE"))
	if module == nil {
		return nil, errors.New("the module is not loaded")
	}
	if err := module.Initialize(); err != nil {
		return nil, err
	}
	slots, err := module.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		information, err := module.GetTokenInfo(slot)
		if err != nil || information.Label != os.Getenv("TOKEN_LABEL") {
			continue
		}
		session, err := module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return nil, err
		}
		if pin := os.Getenv("PIN"); pin != "" {
			err = module.Login(session, pkcs11.CKU_USER, pin)
		}
		return &miekgToken{module, session}, err
	}
	return nil, errors.New("no such token")
}

func (t *miekgToken) close() error {
	defer t.module.Destroy()
	return errors.Join(t.module.CloseSession(t.session), t.module.Finalize())
}

func (t *miekgToken) find(class uint, label string) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
	if err := t.module.FindObjectsInit(t.session, template); err != nil {
		return 0, err
	}
	found, _, err := t.module.FindObjects(t.session, 2)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d objects are called %s", len(found), label)
	}
	if err = errors.Join(err, t.module.FindObjectsFinal(t.session)); err != nil {
		return 0, err
	}
	return found[0], nil
}

func (t *miekgToken) key() (crypto.Signer, error) {
	handle, err := t.find(pkcs11.CKO_PRIVATE_KEY, os.Getenv("KEY_LABEL"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(os.Getenv("PUBLIC"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	return &miekgKey{t, handle, public}, err
}

func (t *miekgToken) generate() error {
	label := "made by miekg"
	curve, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
	if err != nil {
		return err
	}
	public, private, err := t.module.GenerateKeyPair(t.session, mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil),
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, curve), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)},
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)})
	if err != nil {
		return err
	}
	message := []byte("hello")
	err = t.module.SignInit(t.session, mechanism(pkcs11.CKM_ECDSA_SHA256, nil), private)
	var signature []byte
	if err == nil {
		signature, err = t.module.Sign(t.session, message)
	}
	if err == nil {
		err = t.module.VerifyInit(t.session, mechanism(pkcs11.CKM_ECDSA_SHA256, nil), public)
	}
	if err == nil {
		err = t.module.Verify(t.session, message, signature)
	}
	return errors.Join(err, t.module.DestroyObject(t.session, private), t.module.DestroyObject(t.session, public))
}

func mechanism(number uint, parameter any) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(number, parameter)}
}

type miekgKey struct {
	token  *miekgToken
	handle pkcs11.ObjectHandle
	public crypto.PublicKey
}

// The numbers of each hash: its own, its MGF1's, and what stands before it in a DigestInfo (RFC 8017).
var hashes = map[crypto.Hash]struct {
	hash, mgf uint
	prefix    string
}{
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384, "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512, "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"},
}

func (k *miekgKey) Public() crypto.PublicKey { return k.public }

func (k *miekgKey) Sign(_ io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	hash, known := hashes[options.HashFunc()]
	if !known {
		return nil, fmt.Errorf("no numbers for %s", options.HashFunc())
	}
	if _, isRsa := k.public.(*rsa.PublicKey); !isRsa {
		return k.signEcdsa(digest)
	}
	if _, pss := options.(*rsa.PSSOptions); pss {
		parameters := pkcs11.NewPSSParams(hash.hash, hash.mgf, uint(len(digest)))
		return k.raw(mechanism(pkcs11.CKM_RSA_PKCS_PSS, parameters), digest)
	}
	return k.raw(mechanism(pkcs11.CKM_RSA_PKCS, nil), append([]byte(hash.prefix), digest...))
}

func (k *miekgKey) signEcdsa(digest []byte) ([]byte, error) {
	both, err := k.raw(mechanism(pkcs11.CKM_ECDSA, nil), digest)
	if err != nil {
		return nil, err
	}
	half := len(both) / 2
	r, s := new(big.Int).SetBytes(both[:half]), new(big.Int).SetBytes(both[half:])
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

func (k *miekgKey) raw(mechanism []*pkcs11.Mechanism, data []byte) ([]byte, error) {
	if err := k.token.module.SignInit(k.token.session, mechanism, k.handle); err != nil {
		return nil, err
	}
	return k.token.module.Sign(k.token.session, data)
}
