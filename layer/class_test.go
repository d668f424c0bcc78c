package layer_test

import "errors"

func isClass(err, class error) bool { return errors.Is(err, class) }
