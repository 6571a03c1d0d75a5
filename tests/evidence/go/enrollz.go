package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	cpb "github.com/openconfig/attestz/proto/common_definitions"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"github.com/openconfig/attestz/service/biz"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// A card is a device with a TPM of its own: a folder with the variables of devid in the file environment, and with
// the public key that the owner knows in wrapping.der.
type card struct {
	folder string
	id     *cpb.ControlCardVendorId
}

// An owner with two control cards at most. What a service on the device would do, devid does.
type owner struct {
	biz.DefaultTPM20Utils
	biz.DefaultTpmCertVerifier
	devid     string
	cards     []card
	key       epb.Key
	authority *x509.Certificate
	signer    *ecdsa.PrivateKey
}

func newOwner(devid string, key epb.Key, folders []string) *owner {
	signer, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "owner"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	check(err)
	authority, err := x509.ParseCertificate(der)
	check(err)
	made := &owner{devid: devid, key: key, authority: authority, signer: signer}
	for number, folder := range folders {
		made.cards = append(made.cards, card{folder, &cpb.ControlCardVendorId{
			ControlCardRole:     cpb.ControlCardRole(number + 1),
			ControlCardSlot:     fmt.Sprint(number),
			ControlCardSerial:   strings.TrimSpace(string(read(filepath.Join(folder, "serial")))),
			ChassisManufacturer: "Example",
		}})
	}
	return made
}

func (o *owner) selections() []*cpb.ControlCardSelection {
	var all []*cpb.ControlCardSelection
	for _, one := range o.cards {
		all = append(all, &cpb.ControlCardSelection{
			ControlCardId: &cpb.ControlCardSelection_Slot{Slot: one.id.ControlCardSlot},
		})
	}
	return all
}

func (o *owner) selected(selection *cpb.ControlCardSelection) (*card, error) {
	for at := range o.cards {
		if o.cards[at].id.ControlCardSlot == selection.GetSlot() {
			return &o.cards[at], nil
		}
	}
	return nil, errors.New("no such control card")
}

func (o *owner) run(one *card, words ...string) ([]byte, error) {
	command := exec.Command(o.devid, words...)
	command.Dir = one.folder
	command.Env = append(os.Environ(), strings.Fields(string(read(filepath.Join(one.folder, "environment"))))...)
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("devid %s: %w: %s", strings.Join(words, " "), err, complaint.String())
	}
	return out, nil
}

func (o *owner) GetControlCardVendorID(_ context.Context, request *epb.GetControlCardVendorIDRequest) (*epb.GetControlCardVendorIDResponse, error) {
	one, err := o.selected(request.GetControlCardSelection())
	if err != nil {
		return nil, err
	}
	return &epb.GetControlCardVendorIDResponse{ControlCardId: one.id}, nil
}

func (o *owner) FetchEK(_ context.Context, request *biz.FetchEKReq) (*biz.FetchEKResp, error) {
	for _, one := range o.cards {
		if one.id.ControlCardSerial == request.Serial {
			key, err := x509.ParsePKIXPublicKey(read(filepath.Join(one.folder, "wrapping.der")))
			if err != nil {
				return nil, err
			}
			return &biz.FetchEKResp{EkPublicKey: key.(*rsa.PublicKey), KeyType: o.key}, nil
		}
	}
	return nil, errors.New("no such serial number")
}

func (o *owner) asked(one *card, request, response proto.Message, options ...string) error {
	message, err := protojson.Marshal(request)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(one.folder, "request.json"), message, 0o600); err != nil {
		return err
	}
	out, err := o.run(one, append([]string{"challenge", "request.json"}, options...)...)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(out, response)
}

func (o *owner) Challenge(_ context.Context, request *epb.ChallengeRequest) (*epb.ChallengeResponse, error) {
	one, err := o.selected(request.GetControlCardSelection())
	if err != nil {
		return nil, err
	}
	response := &epb.ChallengeResponse{}
	return response, o.asked(one, request, response)
}

func (o *owner) GetIdevidCsr(_ context.Context, request *epb.GetIdevidCsrRequest) (*epb.GetIdevidCsrResponse, error) {
	one, err := o.selected(request.GetControlCardSelection())
	if err != nil {
		return nil, err
	}
	csr := filepath.Join(one.folder, "idevid.csr")
	for _, old := range []string{csr, csr + ".sig"} {
		if err := os.RemoveAll(old); err != nil {
			return nil, err
		}
	}
	if _, err := o.run(one, "attest", "idev-id", "--form", "tcg-csr", "--out", csr); err != nil {
		return nil, err
	}
	return &epb.GetIdevidCsrResponse{
		ControlCardId: one.id,
		CsrResponse:   &epb.CsrResponse{CsrContents: read(csr), IdevidSignatureCsr: read(csr + ".sig")},
		Status:        epb.Status_STATUS_SUCCESS,
	}, nil
}

func (o *owner) GetIakCert(_ context.Context, request *epb.GetIakCertRequest) (*epb.GetIakCertResponse, error) {
	one, err := o.selected(request.GetControlCardSelection())
	if err != nil {
		return nil, err
	}
	iak, err := o.run(one, "export", "iak", "--fullchain")
	if err != nil {
		return nil, err
	}
	idevid, err := o.run(one, "export", "idev-id", "--fullchain")
	if err != nil {
		return nil, err
	}
	return &epb.GetIakCertResponse{
		ControlCardId:               one.id,
		IakCert:                     string(iak),
		IdevidCert:                  string(idevid),
		AtomicCertRotationSupported: len(o.cards) == 1,
	}, nil
}

func (o *owner) RotateOIakCert(_ context.Context, request *epb.RotateOIakCertRequest) (*epb.RotateOIakCertResponse, error) {
	for _, update := range request.GetUpdates() {
		one, err := o.selected(update.GetControlCardSelection())
		if err != nil {
			return nil, err
		}
		words := []string{"import-cert", "--owner"}
		for name, content := range map[string]string{"oiak.pem": update.GetOiakCert(), "oidevid.pem": update.GetOidevidCert()} {
			if content == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(one.folder, name), []byte(content), 0o600); err != nil {
				return nil, err
			}
			words = append(words, name)
		}
		if _, err := o.run(one, words...); err != nil {
			return nil, err
		}
	}
	return &epb.RotateOIakCertResponse{}, nil
}

func (o *owner) issued(id *cpb.ControlCardVendorId, name, public string) (string, error) {
	block, _ := pem.Decode([]byte(public))
	if block == nil {
		return "", errors.New("no PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, SerialNumber: id.GetControlCardSerial()},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, o.authority, key.(crypto.PublicKey), o.signer)
	if err != nil {
		return "", err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.authority.Raw})...)
	return string(chain), nil
}

func (o *owner) IssueOwnerIakCert(_ context.Context, request *biz.IssueOwnerIakCertReq) (*biz.IssueOwnerIakCertResp, error) {
	issued, err := o.issued(request.CardID, "oiak", request.IakPubPem)
	return &biz.IssueOwnerIakCertResp{OwnerIakCertPem: issued}, err
}

func (o *owner) IssueOwnerIDevIDCert(_ context.Context, request *biz.IssueOwnerIDevIDCertReq) (*biz.IssueOwnerIDevIDCertResp, error) {
	issued, err := o.issued(request.CardID, "oidevid", request.IDevIDPubPem)
	return &biz.IssueOwnerIDevIDCertResp{OwnerIDevIDCertPem: issued}, err
}

func (o *owner) IssueAikCert(context.Context, *biz.IssueAikCertReq) (*biz.IssueAikCertResp, error) {
	return nil, errors.New("of TPM 1.2")
}

func (o *owner) RotateAIKCert(context.Context, ...grpc.CallOption) (epb.TpmEnrollzService_RotateAIKCertClient, error) {
	return nil, errors.New("of TPM 1.2")
}

// vendors: the certificates that the maker's CA signed, of each card.
func (o *owner) vendors() x509.VerifyOptions {
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, one := range o.cards {
		options.Roots.AppendCertsFromPEM(read(filepath.Join(one.folder, "maker.pem")))
		options.Intermediates.AppendCertsFromPEM(read(filepath.Join(one.folder, "maker-ca.pem")))
	}
	return options
}

// enrollz: attestz's own enrolment, as an owner runs it.
func enrollz(how, devid string, folders []string) {
	ctx := context.Background()
	const profile = "profile"
	switch how {
	case "ek", "ppk":
		key := map[string]epb.Key{"ek": epb.Key_KEY_EK, "ppk": epb.Key_KEY_PPK}[how]
		deps := newOwner(devid, key, folders)
		check(biz.EnrollSwitchWithHMACChallenge(ctx, &biz.EnrollSwitchWithHMACChallengeReq{
			ControlCardSelections: deps.selections(),
			Deps:                  deps,
			SSLProfileID:          profile,
		}))
	case "certificates":
		deps := newOwner(devid, epb.Key_KEY_UNSPECIFIED, folders)
		check(biz.EnrollControlCard(ctx, &biz.EnrollControlCardReq{
			ControlCardSelections: deps.selections(),
			Deps:                  deps,
			CertVerificationOpts:  deps.vendors(),
			SSLProfileID:          profile,
		}))
	case "rotation":
		deps := newOwner(devid, epb.Key_KEY_UNSPECIFIED, folders)
		check(biz.RotateOwnerIakCert(ctx, &biz.RotateOwnerIakCertReq{
			ControlCardSelections: deps.selections(),
			Deps:                  deps,
			CertVerificationOpts:  deps.vendors(),
			SSLProfileID:          profile,
			EnableOidevidRotate:   true,
		}))
	default:
		check(fmt.Errorf("enrollz: %s", how))
	}
}
