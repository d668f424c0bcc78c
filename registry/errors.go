package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"
)

var (
	errInvalid = errdefs.ErrInvalidArgument
	errStalled = errors.New("the transfer stands still")
)

// classError gives an error a class of errdefs without the class's own words.
type classError struct {
	class error
	err   error
}

func (e *classError) Error() string   { return e.err.Error() }
func (e *classError) Unwrap() []error { return []error{e.class, e.err} }

func classed(class error, format string, args ...any) error {
	return &classError{class, fmt.Errorf(format, args...)}
}

// explain says in one line, with a class, what went wrong about an object of
// the repository.
func (r *repository) explain(err error, object string) error {
	var (
		answer  *errcode.ErrorResponse
		request *url.Error
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return r.unauthorized()
	case errors.Is(err, errdef.ErrNotFound):
		return classed(errdefs.ErrNotFound, "%s not found in %s", object, r.ref.Path)
	case errors.As(err, &answer):
		return r.explainAnswer(answer, object)
	case errors.As(err, &request):
		return classed(errdefs.ErrUnavailable, "registry %s: %w", r.Reference.Registry, request.Err)
	}
	return err
}

func (r *repository) explainAnswer(answer *errcode.ErrorResponse, object string) error {
	what := http.StatusText(answer.StatusCode)
	if len(answer.Errors) > 0 {
		what = answer.Errors[0].Error()
	}
	class := errdefs.ErrUnknown
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		return r.unauthorized()
	case http.StatusForbidden:
		return classed(errdefs.ErrPermissionDenied, "registry %s: denied: %s of %s: %s", r.Reference.Registry, object, r.ref.Path, what)
	case http.StatusNotFound:
		return classed(errdefs.ErrNotFound, "%s not found in %s: %s", object, r.ref.Path, what)
	case http.StatusTooManyRequests, http.StatusRequestTimeout:
		return classed(errdefs.ErrUnavailable, "registry %s: %s: %s", r.Reference.Registry, object, what)
	}
	if answer.StatusCode >= http.StatusInternalServerError {
		return classed(errdefs.ErrUnavailable, "registry %s: %s: status %d, %s", r.Reference.Registry, object, answer.StatusCode, what)
	}
	return classed(class, "registry %s: %s: status %d, %s", r.Reference.Registry, object, answer.StatusCode, what)
}

// unauthorized says what the user can do about it. Some registries tell
// strangers that a name that does not exist is forbidden.
func (r *repository) unauthorized() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.user == "" {
		return classed(errdefs.ErrUnauthenticated, "registry %s: unauthorized: there are no credentials for it, and %s is private or does not exist", r.Reference.Registry, r.ref.Path)
	}
	return classed(errdefs.ErrUnauthenticated, "registry %s: unauthorized: it does not let user %q have %s", r.Reference.Registry, r.user, r.ref.Path)
}

// answerError is the error for an answer that is not what was asked for.
func answerError(resp *http.Response) error {
	return &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
}

const maxFailures = 5 // in a row

// firstPause comes before the second attempt; it is twice as long each time.
var firstPause = 200 * time.Millisecond

// pause waits before the next attempt after so many failures.
func pause(ctx context.Context, failures int) error {
	timer := time.NewTimer(firstPause << (failures - 1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// policy says when a request is sent again that was not answered, or answered
// with "later". There are few attempts, and none is longer away than a minute.
var policy retry.Policy = &retry.GenericPolicy{
	Retryable: retry.DefaultPredicate,
	Backoff:   backoff,
	MinWait:   200 * time.Millisecond,
	MaxWait:   time.Minute,
	MaxRetry:  maxFailures,
}

// backoff is as long as the registry asks for, if it does.
func backoff(attempt int, resp *http.Response) time.Duration {
	if resp != nil {
		value := resp.Header.Get("Retry-After") // RFC 9110, section 10.2.3
		if seconds, err := strconv.ParseUint(value, 10, 16); err == nil {
			return time.Duration(seconds) * time.Second
		}
		if date, err := http.ParseTime(value); err == nil {
			return time.Until(date)
		}
	}
	return retry.DefaultBackoff(attempt, resp)
}

// isTransient reports whether the same may go well a little later.
func isTransient(err error) bool {
	var (
		answer  *errcode.ErrorResponse
		network net.Error
	)
	switch {
	case errors.As(err, &answer):
		return answer.StatusCode >= http.StatusInternalServerError ||
			answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout
	case errors.Is(err, errStalled), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return true
	}
	return errors.As(err, &network) && network.Timeout()
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
