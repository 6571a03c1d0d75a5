package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"github.com/openconfig/attestz/service/biz"
	"github.com/openconfig/bootz/common/signature"
	bpb "github.com/openconfig/bootz/proto/bootz"
	"google.golang.org/protobuf/proto"
)

// transportKey: the message of a device, in its folder.
func (o *owner) transportKey(one *card, nonce []byte) []byte {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	check(err)
	serialized, err := proto.Marshal(&bpb.TransportKey{
		CipherSuite: bpb.HPKECipherSuite_HPKE_CIPHER_SUITE_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM,
		PublicKey:   key.PublicKey().Bytes(),
		Nonce:       nonce,
	})
	check(err)
	check(os.WriteFile(filepath.Join(one.folder, "transport.key"), serialized, 0o600))
	return serialized
}

// byIdentity: the IDevID signs the transport key, and bootz's own code verifies by a certificate of the owner's.
func (o *owner) byIdentity(one *card) {
	nonce := make([]byte, 16)
	_, err := rand.Read(nonce)
	check(err)
	serialized := o.transportKey(one, nonce)
	chain, err := o.run(one, "export", "idev-id", "--cert")
	check(err)
	block, _ := pem.Decode(chain)
	factory, err := x509.ParseCertificate(block.Bytes)
	check(err)
	info, err := x509.MarshalPKIXPublicKey(factory.PublicKey)
	check(err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: info})
	issued, err := o.IssueOwnerIDevIDCert(context.Background(), &biz.IssueOwnerIDevIDCertReq{CardID: one.id, IDevIDPubPem: string(public)})
	check(err)
	block, _ = pem.Decode([]byte(issued.OwnerIDevIDCertPem))
	certificate, err := x509.ParseCertificate(block.Bytes)
	check(err)
	signed, err := o.run(one, "sign", "idev-id", "transport.key", "--raw", "--hash", "sha384")
	check(err)
	check(signature.Verify(certificate, serialized, signed))
	serialized[len(serialized)-1] ^= 1
	if signature.Verify(certificate, serialized, signed) == nil {
		check(errors.New("bootz accepts a changed nonce"))
	}
}

// byHMAC: the checks of bootz's server, by attestz's code.
func (o *owner) byHMAC(one *card) {
	serialized := o.transportKey(one, nil)
	public, sensitive, err := o.GenerateRestrictedHMACKey()
	check(err)
	known, err := o.FetchEK(context.Background(), &biz.FetchEKReq{Serial: one.id.ControlCardSerial})
	check(err)
	duplicate, seed, err := o.WrapHMACKeytoRSAPublicKey(known.EkPublicKey, public, sensitive)
	check(err)
	request := &bpb.BootstrapStreamResponseV1_ChallengeRequest_ChallengeRequestTPM20HMAC{
		KeyType: epb.Key_KEY_EK,
		HmacEncrypted: &epb.HMACChallenge{
			HmacPubKey: tpm2.Marshal(tpm2.New2B(*public)),
			Duplicate:  tpm2.Marshal(&tpm2.TPM2BPrivate{Buffer: duplicate}),
			InSymSeed:  tpm2.Marshal(&tpm2.TPM2BEncryptedSecret{Buffer: seed}),
		},
	}
	response := &bpb.BootstrapStreamRequestV1_ChallengeResponse_ChallengeResponseTPM20HMAC{}
	check(o.asked(one, request, response, "--transport-key", "transport.key"))
	sized, err := tpm2.Unmarshal[tpm2.TPM2BAttest](response.GetHmac().GetIakCertifyInfo())
	check(err)
	certified, err := sized.Contents()
	check(err)
	check(o.VerifyHMAC(tpm2.Marshal(certified), response.GetHmac().GetIakCertifyInfoSignature(), sensitive))
	iak, err := o.VerifyIAKAttributes(response.GetHmac().GetIakPub())
	check(err)
	check(o.VerifyCertifyInfo(certified, iak))
	bound, err := tpm2.Unmarshal[tpm2.TPMTHA](certified.ExtraData.Buffer)
	check(err)
	digest := sha256.Sum256(serialized)
	if bound.HashAlg != tpm2.TPMAlgSHA256 || subtle.ConstantTimeCompare(bound.Digest, digest[:]) != 1 {
		check(errors.New("extraData does not bind the transport key"))
	}
	if string(response.GetSerializedTransportKey()) != string(serialized) {
		check(errors.New("another transport key"))
	}
}

func bootz(how, devid, folder string) {
	made := newOwner(devid, epb.Key_KEY_EK, []string{folder})
	switch how {
	case "idevid":
		made.byIdentity(&made.cards[0])
	case "hmac":
		made.byHMAC(&made.cards[0])
	default:
		check(fmt.Errorf("bootz: %s", how))
	}
}
