package registrycli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/hostcompute/hcs/internal/cli"
)

// readTimeout bounds how long a client may take to ask, and answerTimeout how long to take the answer.
const (
	readTimeout   = 10 * time.Second
	answerTimeout = 30 * time.Second
)

// serve answers HTTP requests for a path until the context ends.
func serve(ctx context.Context, at cli.Listener, ready func(url string), write func(context.Context, io.Writer) error) error {
	l, err := listen(ctx, at)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+at.Path, func(w http.ResponseWriter, r *http.Request) {
		var text bytes.Buffer // whole, or an error
		if err := write(r.Context(), &text); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", at.ContentType)
		_, _ = text.WriteTo(w) // a client that is gone needs none
	})
	server := &http.Server{Handler: mux, ReadTimeout: readTimeout, WriteTimeout: answerTimeout, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() {
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(short)
		_ = server.Close() // whoever has not had his answer by now
	})
	defer stop()
	ready(url(at, l))
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", at.Address, err)
	}
	return nil
}

func url(at cli.Listener, l net.Listener) string {
	if at.Network == "unix" {
		return "unix:" + at.Address
	}
	return "http://" + l.Addr().String() + at.Path
}

// listen opens the socket. One in the file system is for this user alone, and takes the place of one that nobody listens at.
func listen(ctx context.Context, at cli.Listener) (net.Listener, error) {
	config := net.ListenConfig{Control: at.Control}
	l, err := config.Listen(ctx, at.Network, at.Address)
	if at.Network == "unix" && errors.Is(err, syscall.EADDRINUSE) && isAbandoned(ctx, at.Address) {
		if err := os.Remove(at.Address); err != nil {
			return nil, err
		}
		l, err = config.Listen(ctx, at.Network, at.Address)
	}
	return l, err
}

// isAbandoned reports whether the path is a socket of a program that is no more.
func isAbandoned(ctx context.Context, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
