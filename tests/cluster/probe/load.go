package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// What became of the requests so far.
type report struct {
	Sent      int            `json:"sent"`
	Finished  int            `json:"finished"`
	Failed    int            `json:"failed"`
	Failures  []string       `json:"failures"`
	Pods      map[string]int `json:"pods"`
	SlowestMs int64          `json:"slowest_ms"`
}

// Enough to see what went wrong.
const failuresKept = 20

// One stream of requests at an even rate, whatever becomes of them. A slow server meets more of them at once, not fewer, and
// what a slow client missed it makes up for.
type load struct {
	mutex  sync.Mutex
	report report
	cancel context.CancelFunc
	under  sync.WaitGroup
}

// Obeys on :9091: POST /start?rate=N&url=URL; GET /report; POST /stop ends it, waits for what is under way, and reports.
func serveLoad(term context.Context) error {
	current := &load{}
	routes := http.NewServeMux()
	routes.HandleFunc("/healthz", func(reply http.ResponseWriter, _ *http.Request) { reply.WriteHeader(http.StatusOK) })
	routes.HandleFunc("/start", func(reply http.ResponseWriter, request *http.Request) {
		rate, err := strconv.Atoi(request.URL.Query().Get("rate"))
		if err != nil || rate < 1 {
			http.Error(reply, "rate: a number above 0", http.StatusBadRequest)
			return
		}
		current.stop()
		current = &load{report: report{Pods: map[string]int{}, Failures: []string{}}}
		current.start(rate, request.URL.Query().Get("url"))
	})
	routes.HandleFunc("/report", func(reply http.ResponseWriter, _ *http.Request) { current.write(reply) })
	routes.HandleFunc("/stop", func(reply http.ResponseWriter, _ *http.Request) {
		current.stop()
		current.write(reply)
	})
	return listen(term, &http.Server{Addr: ":9091", Handler: routes})
}

func (l *load) start(rate int, url string) {
	running, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	client := &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 64,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		},
	}
	l.under.Add(1)
	go func() {
		defer l.under.Done()
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		begun := time.Now()
		for made := 0; ; {
			select {
			case <-running.Done():
				return
			case <-tick.C:
			}
			// At twice the rate at most: a flood would be another test.
			due := int(time.Since(begun).Seconds() * float64(rate))
			for burst := 0; made < due && burst < 2; burst++ {
				made++
				l.under.Add(1)
				go l.request(client, url)
			}
		}
	}()
}

func (l *load) stop() {
	if l.cancel != nil {
		l.cancel()
	}
	l.under.Wait()
}

func (l *load) write(reply http.ResponseWriter) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	_ = json.NewEncoder(reply).Encode(l.report)
}

func (l *load) request(client *http.Client, url string) {
	defer l.under.Done()
	l.mutex.Lock()
	l.report.Sent++
	l.mutex.Unlock()
	start := time.Now()
	pod, err := ask(client, url)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.report.Finished++
	l.report.SlowestMs = max(l.report.SlowestMs, time.Since(start).Milliseconds())
	if err == nil {
		l.report.Pods[pod]++
		return
	}
	l.report.Failed++
	if len(l.report.Failures) < failuresKept {
		l.report.Failures = append(l.report.Failures, start.UTC().Format("15:04:05.000 ")+err.Error())
	}
}

// One request; the pod that answered.
func ask(client *http.Client, url string) (string, error) {
	reply, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		return "", err
	}
	if reply.StatusCode != http.StatusOK {
		header := reply.Header
		return "", fmt.Errorf("%s (tulle-reason %q, tulle-proxy %q)", reply.Status, header.Get("tulle-reason"), header.Get("tulle-proxy"))
	}
	var from seen
	if err := json.Unmarshal(body, &from); err != nil {
		return "", fmt.Errorf("not an answer of the server: %w", err)
	}
	return from.Pod, nil
}
