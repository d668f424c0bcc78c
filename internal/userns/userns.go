package userns

import (
	"os"
	"strconv"
)

// ownerVariable is the environment variable that says which user's namespace
// a program is in. It is passed on to the programs that it starts.
const ownerVariable = "HCS_USERNS_OWNER"

// Owner returns the uid, outside, of the user in whose namespace this process
// is, if it or one that it descends from came there by Enter.
func Owner() (uid int, ok bool) {
	if IsInitial() {
		return 0, false
	}
	uid, err := strconv.Atoi(os.Getenv(ownerVariable))
	return uid, err == nil
}
