package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"
)

// What a server says of itself and of the request it saw.
type seen struct {
	Pod     string      `json:"pod"`
	Zone    string      `json:"zone"`
	Remote  string      `json:"remote"`
	Host    string      `json:"host"`
	Headers http.Header `json:"headers"`
}

// Serves until SIGTERM and then ends as applications do that know nothing of endpoints: it stops to accept at once and
// finishes what it has begun.
func serve(term context.Context) error {
	routes := http.NewServeMux()
	routes.HandleFunc("/", echo)
	routes.HandleFunc("/healthz", func(reply http.ResponseWriter, _ *http.Request) { reply.WriteHeader(http.StatusOK) })
	routes.HandleFunc("/grpc.health.v1.Health/Check", grpcHealthy)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return listen(term,
		&http.Server{Addr: ":8080", Handler: routes, Protocols: protocols},
		&http.Server{Addr: ":9090", Handler: http.HandlerFunc(echo)})
}

// Runs servers until SIGTERM, then ends them without breaking a request.
func listen(term context.Context, servers ...*http.Server) error {
	ended := make(chan error, len(servers))
	for _, server := range servers {
		go func() { ended <- server.ListenAndServe() }()
	}
	select {
	case err := <-ended:
		return err
	case <-term.Done():
	}
	patience, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Shutdown(patience))
	}
	return errors.Join(errs...)
}

func echo(reply http.ResponseWriter, request *http.Request) {
	if wait, err := time.ParseDuration(request.URL.Query().Get("wait")); err == nil {
		time.Sleep(wait)
	}
	reply.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(reply).Encode(seen{
		Pod:     os.Getenv("POD"),
		Zone:    os.Getenv("ZONE"),
		Remote:  request.RemoteAddr,
		Host:    request.Host,
		Headers: request.Header,
	})
}

// The answer SERVING of grpc.health.v1: one message of two bytes after its frame of five.
func grpcHealthy(reply http.ResponseWriter, _ *http.Request) {
	reply.Header().Set("content-type", "application/grpc")
	reply.Header().Set("trailer", "grpc-status")
	_, _ = reply.Write([]byte{0, 0, 0, 0, 2, 0x08, 0x01})
	reply.Header().Set("grpc-status", "0")
}
