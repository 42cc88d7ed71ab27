// The application of the cluster's tests, client and server in one static program that knows nothing of a mesh.
//
//	probe serve            answers on :8080 (HTTP/1, HTTP/2, gRPC health) and :9090 (HTTP outside of the mesh) until SIGTERM
//	probe load             makes requests as told on :9091, until SIGTERM
//	probe get URL          one request; prints the body; fails unless the status is 200
//	probe job URL          waits until URL answers 200, then ends
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(term, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(term context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve(term)
	case len(args) == 1 && args[0] == "load":
		return serveLoad(term)
	case len(args) == 2 && args[0] == "get":
		body, err := get(args[1])
		fmt.Print(body)
		return err
	case len(args) == 2 && args[0] == "job":
		return job(term, args[1])
	}
	return fmt.Errorf("usage: probe serve | load | get URL | job URL")
}

func get(url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	reply, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err == nil && reply.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s (tulle-reason: %s)", url, reply.Status, reply.Header.Get("tulle-reason"))
	}
	return string(body), err
}

// A job asks until it gets what it wants, as a migration waits for its database.
func job(term context.Context, url string) error {
	for {
		body, err := get(url)
		if err == nil {
			fmt.Print(body)
			return nil
		}
		fmt.Fprintln(os.Stderr, err)
		select {
		case <-term.Done():
			return term.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
