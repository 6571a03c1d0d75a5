module devid-judge-flightctl

go 1.24.0

require github.com/google/go-tpm v0.9.5

require golang.org/x/sys v0.8.0 // indirect
