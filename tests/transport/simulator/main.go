// Serves Microsoft's reference implementation of TPM 2.0, which google/go-tpm-tools carries, by the protocol
// of the reference simulator (TCTI mssim): commands on PORT of 127.0.0.1, the platform's signals on PORT + 1.
//
//	simulator PORT
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/google/go-tpm-tools/simulator"
)

const (
	sendCommand = 8
	sessionEnd  = 20
	maximum     = 4096
)

// turn lets a single command at a time into the TPM.
var turn sync.Mutex

// run gives the TPM's answer to a command.
func run(tpm io.ReadWriter, command []byte) ([]byte, error) {
	turn.Lock()
	defer turn.Unlock()
	if _, err := tpm.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, maximum)
	length, err := tpm.Read(answer)
	return answer[:length], err
}

// commands serves a client of the command port until it ends.
func commands(tpm io.ReadWriter, client net.Conn) error {
	defer client.Close()
	for {
		var code uint32
		if err := binary.Read(client, binary.BigEndian, &code); err != nil {
			return err
		}
		if code == sessionEnd {
			return nil
		}
		if code != sendCommand {
			return fmt.Errorf("code %d is not served", code)
		}
		var head struct {
			Locality uint8
			Size     uint32
		}
		if err := binary.Read(client, binary.BigEndian, &head); err != nil {
			return err
		}
		if head.Size > maximum {
			return fmt.Errorf("a command of %d bytes", head.Size)
		}
		command := make([]byte, head.Size)
		if _, err := io.ReadFull(client, command); err != nil {
			return err
		}
		answer, err := run(tpm, command)
		if err != nil {
			return err
		}
		framed := binary.BigEndian.AppendUint32(nil, uint32(len(answer)))
		framed = append(framed, answer...)
		framed = binary.BigEndian.AppendUint32(framed, 0)
		if _, err := client.Write(framed); err != nil {
			return err
		}
	}
}

// signals answers each signal of the platform with success: the TPM is on from the start.
func signals(client net.Conn) error {
	defer client.Close()
	for {
		var code uint32
		if err := binary.Read(client, binary.BigEndian, &code); err != nil {
			return err
		}
		if code == sessionEnd {
			return nil
		}
		if _, err := client.Write(make([]byte, 4)); err != nil {
			return err
		}
	}
}

func serve(listener net.Listener, client func(net.Conn) error) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			if err := client(connection); err != nil && err != io.EOF {
				log.Print(err)
			}
		}()
	}
}

func main() {
	port, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	tpm, err := simulator.Get() // is started up
	if err != nil {
		log.Fatal(err)
	}
	platform, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
	if err != nil {
		log.Fatal(err)
	}
	data, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		log.Fatal(err)
	}
	go serve(platform, signals)
	serve(data, func(client net.Conn) error { return commands(tpm, client) })
}
