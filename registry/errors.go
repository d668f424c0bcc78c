package registry

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/containerd/errdefs"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
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
	case errors.Is(err, http.ErrSchemeMismatch):
		return classed(errdefs.ErrUnavailable, "registry %s: it speaks plain HTTP, which has to be asked for", r.Reference.Registry)
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
	if answer.StatusCode == http.StatusBadRequest && r.PlainHTTP {
		what += ", to a question in plain HTTP: it may be HTTPS that it speaks"
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

// isLater reports whether a status says that the same may go well a little
// later.
func isLater(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout:
		return true
	case http.StatusNotImplemented:
		return false
	}
	return status >= http.StatusInternalServerError
}

// isTransient reports whether the same may go well a little later.
func isTransient(err error) bool {
	var (
		answer  *errcode.ErrorResponse
		network net.Error
	)
	switch {
	case errors.As(err, &answer):
		return isLater(answer.StatusCode)
	case errors.Is(err, errStalled), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return true
	}
	return errors.As(err, &network) && network.Timeout()
}
