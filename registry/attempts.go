package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"oras.land/oras-go/v2/registry/remote/errcode"
)

const (
	maxFailures = 5           // in a row
	maxPause    = time.Minute // whatever a registry asks for
)

// firstPause comes before the second attempt; it is twice as long each time.
var firstPause = 200 * time.Millisecond

// attempts are how often one thing has failed in a row: a question, an
// upload, or a download, which begins anew when it has got somewhere. Nothing
// below counts for itself, so that they do not multiply.
type attempts struct{ failures int }

// wait returns when it is time for another attempt after one that failed with
// cause, or the cause, if there were enough of them, or why the context ended.
func (a *attempts) wait(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if a.failures++; a.failures > maxFailures {
		return cause
	}
	pause := firstPause << (a.failures - 1)
	if later, ok := errors.AsType[*laterError](cause); ok && later.after > 0 {
		pause = later.after
	}
	timer := time.NewTimer(min(pause, maxPause))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// again repeats what fails for a while.
func again(ctx context.Context, f func() error) error {
	var a attempts
	for {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !isTransient(err):
			return err
		}
		if err := a.wait(ctx, err); err != nil {
			return err
		}
	}
}

// later is a transport that gives an answer to come back later as an error,
// like that of a connection that broke: attempts deals with both.
type later struct{ http.RoundTripper }

func (l later) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err != nil || !isLater(resp.StatusCode) {
		return resp, err
	}
	defer resp.Body.Close()
	return nil, &laterError{answerError(resp), retryAfter(resp.Header)}
}

// A laterError is such an answer.
type laterError struct {
	error
	after time.Duration // 0 if the registry does not say
}

func (e *laterError) Unwrap() error { return e.error }

// retryAfter is how long a registry asks for (RFC 9110, section 10.2.3).
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 16); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return time.Until(date)
	}
	return 0
}

const maxMessage = 8 << 10 // of an answer that is an error

// answerError is the error for an answer that is not what was asked for, with
// what the registry says about it.
func answerError(resp *http.Response) error {
	answer := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	var said struct {
		Errors errcode.Errors `json:"errors"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(&said); err == nil {
		answer.Errors = said.Errors
	}
	return answer
}

// A watch cancels a context when something takes too long.
type watch struct {
	limit time.Duration
	timer *time.Timer
}

func newWatch(ctx context.Context, limit time.Duration) (context.Context, *watch, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{limit: limit, timer: time.AfterFunc(limit, func() { cancel(errStalled) })}
	w.timer.Stop()
	return ctx, w, func() {
		w.timer.Stop()
		cancel(nil)
	}
}

func (w *watch) start() { w.timer.Reset(w.limit) }
func (w *watch) stop()  { w.timer.Stop() }
