package registrycli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// post sends a body to a URL.
func post(ctx context.Context, url string, header map[string]string, body io.Reader) (err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return err
	}
	for key, value := range header {
		r.Header.Set(key, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 == 2 {
		return nil
	}
	const enough = 500
	why, _ := io.ReadAll(io.LimitReader(answer.Body, enough)) // the status says the most
	return fmt.Errorf("the answer is %s: %s", answer.Status, strings.TrimSpace(string(why)))
}
