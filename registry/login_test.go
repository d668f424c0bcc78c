package registry_test

import (
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/hostcompute/hcs/registry"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	addr := startWithAuth(t)
	src, img := newImage(t, amd64)
	ref := parse(t, addr+"/web:1")
	file := filepath.Join(t.TempDir(), "config.json")
	kept := registry.Config{AuthFile: file}
	_, err := registry.Login(t.Context(), addr, registry.Config{AuthFile: file, User: user, Password: "guess"})
	checkError(t, err, errdefs.ErrUnauthenticated, `it does not take this password of user "tester"`)
	checkError(t, push(t.Context(), src, img, ref, kept), errdefs.ErrUnauthenticated, "there are no credentials")

	if _, err := registry.Login(t.Context(), addr, registry.Config{AuthFile: file, User: user, Password: password}); err != nil {
		t.Fatal(err)
	}
	if err := push(t.Context(), src, img, ref, kept); err != nil {
		t.Fatal(err)
	}
	if err := registry.Logout(t.Context(), addr, kept); err != nil {
		t.Fatal(err)
	}
	_, err = pull(t.Context(), newStore(t), ref, kept)
	checkError(t, err, errdefs.ErrUnauthenticated, "there are no credentials")
}
