package hcserror

import (
	"fmt"
	"runtime"
	"syscall"
)

// texts are short descriptions of the codes that this project returns, in the words of Windows' documentation as far as these
// say what is meant. A syscall.Errno prints the local system's error of the same number, which is another.
var texts = map[syscall.Errno]string{
	FileNotFound:        "The system cannot find the file specified.",
	PathNotFound:        "The system cannot find the path specified.",
	AccessDenied:        "Access is denied.",
	InvalidData:         "The data is invalid.",
	NotReady:            "The device is not ready.",
	GenFailure:          "A device attached to the system is not functioning.",
	SharingViolation:    "The process cannot access the file because it is being used by another process.",
	NotSupported:        "The request is not supported.",
	DevNotExist:         "The specified network resource or device is no longer available.",
	InvalidParameter:    "The parameter is incorrect.",
	DiskFull:            "There is not enough space on the disk.",
	ProcNotFound:        "The specified procedure could not be found.",
	Busy:                "The requested resource is in use.",
	AlreadyExists:       "Cannot create a file when that file already exists.",
	BadDB:               "The configuration registry database is corrupt.",
	NotRegistryFile:     "The file that was to be loaded into the registry is not in the form of a registry file.",
	ElementNotFound:     "Element not found.",
	Cancelled:           "The operation was canceled by the user.",
	FileCorrupt:         "The file or directory is corrupted and unreadable.",
	Timeout:             "This operation returned because the timeout period expired.",
	InvalidState:        "The group or resource is not in the correct state to perform the requested operation.",
	FltInstanceNotFound: "An instance of the filter was not found on the volume.",

	0xc0370103: "An operation is pending.",
	0xc0370105: "The requested compute system operation is not valid in the current state.",
	0xc0370106: "A compute system exited unexpectedly.",
	0xc037010b: "The compute service received an unknown message.",
	0xc037010d: "The compute service received a document that is not valid.",
	0xc037010e: "A compute system with the specified identifier does not exist.",
	0xc037010f: "A compute system with the specified identifier already exists.",
	0xc0370110: "The compute system with the specified identifier did already stop.",
}

// Text says what a code means on Windows.
func Text(code syscall.Errno) string {
	if s, ok := texts[code]; ok {
		return s
	}
	if runtime.GOOS == "windows" {
		return code.Error()
	}
	return fmt.Sprintf("Windows error %d", uintptr(code))
}
