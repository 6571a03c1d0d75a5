module devid-judges

go 1.26.1

require (
	github.com/google/go-attestation v0.6.4
	github.com/google/go-tpm v0.9.8
	github.com/openconfig/attestz v0.6.19
	github.com/openconfig/bootz v0.7.2
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/golang/glog v1.2.5 // indirect
	github.com/openconfig/gnmi v0.14.1 // indirect
	github.com/openconfig/gnsi v1.9.1 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e // indirect
)
