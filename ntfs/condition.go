package ntfs

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Tokens of conditional expressions (MS-DTYP 2.4.4.17).
const (
	tokenInt64     = 0x04
	tokenString    = 0x10
	tokenOctets    = 0x18
	tokenComposite = 0x50
	tokenSID       = 0x51
	tokenExists    = 0x87
	tokenNotExists = 0x8D
	tokenAnd       = 0xA0
	tokenOr        = 0xA1
	tokenNot       = 0xA2
	tokenLocal     = 0xF8
)

const (
	conditionMagic = "artx"
	maxDepth       = 64 // of operators and lists inside one another
)

// comparisons are the operators between two operands; longer ones before
// those that they begin with.
var comparisons = []struct {
	text  string
	token byte
}{
	{"==", 0x80},
	{"!=", 0x81},
	{"<=", 0x83},
	{"<", 0x82},
	{">=", 0x85},
	{">", 0x84},
	{"Contains", 0x86},
	{"Any_of", 0x88},
	{"Not_Contains", 0x8E},
	{"Not_Any_of", 0x8F},
}

// memberships are the operators before one list of SIDs.
var memberships = []struct {
	text  string
	token byte
}{
	{"Member_of_Any", 0x8B},
	{"Member_of", 0x89},
	{"Device_Member_of_Any", 0x8C},
	{"Device_Member_of", 0x8A},
	{"Not_Member_of_Any", 0x92},
	{"Not_Member_of", 0x90},
	{"Not_Device_Member_of_Any", 0x93},
	{"Not_Device_Member_of", 0x91},
}

var attributePrefixes = [...]string{"", "@User.", "@Resource.", "@Device."} // from tokenLocal on

// ConditionText prints the conditional expression of a callback ACE, in
// parentheses. Parentheses are put around every operator's result.
func (m Domain) ConditionText(data []byte) (string, error) {
	body, ok := strings.CutPrefix(string(data), conditionMagic)
	if !ok {
		return "", fmt.Errorf("print condition: %w: application data that is no condition", ErrUnsupported)
	}
	s := conditionStack{names: m, c: cursor{b: []byte(body)}}
	for len(s.c.b) > 0 {
		if err := s.step(); err != nil {
			return "", fmt.Errorf("print condition at offset %d: %w", len(data)-len(s.c.b), err)
		}
	}
	if len(s.terms) != 1 || !s.terms[0].result {
		return "", fmt.Errorf("print condition: %w: it leaves %d results", ErrFormat, len(s.terms))
	}
	return s.terms[0].text, nil
}

// A term is an operand, or the result of an operator in parentheses.
type term struct {
	text   string
	result bool
	depth  int
}

type conditionStack struct {
	names Domain
	c     cursor
	terms []term
}

func (s *conditionStack) pop() (term, error) {
	if len(s.terms) == 0 {
		return term{}, fmt.Errorf("%w: an operator without operands", ErrFormat)
	}
	t := s.terms[len(s.terms)-1]
	s.terms = s.terms[:len(s.terms)-1]
	return t, nil
}

// step moves over one token.
func (s *conditionStack) step() error {
	token := s.c.take(1)[0]
	if token == 0 { // padding
		for _, b := range s.c.b {
			if b != 0 {
				return fmt.Errorf("%w: tokens after the padding", ErrFormat)
			}
		}
		s.c.b = nil
		return nil
	}
	if op, ok := operatorText(token); ok {
		return s.operate(token, op)
	}
	text, err := s.operand(token, 0)
	s.terms = append(s.terms, term{text: text})
	return err
}

func operatorText(token byte) (string, bool) {
	for _, table := range [][]struct {
		text  string
		token byte
	}{comparisons, memberships, {{"Exists", tokenExists}, {"Not_Exists", tokenNotExists}, {"&&", tokenAnd}, {"||", tokenOr}, {"!", tokenNot}}} {
		for _, row := range table {
			if row.token == token {
				return row.text, true
			}
		}
	}
	return "", false
}

func (s *conditionStack) operate(token byte, op string) error {
	right, err := s.pop()
	if err != nil {
		return err
	}
	isLogic := token == tokenAnd || token == tokenOr || token == tokenNot
	if isLogic != right.result {
		return fmt.Errorf("%w: operand of %s", ErrFormat, op)
	}
	depth := right.depth + 1
	text := "(" + op + " " + right.text + ")"
	switch {
	case token == tokenNot:
		text = "(!" + right.text + ")"
	case token < 0x87 || token == 0x88 || token == 0x8E || token == 0x8F || token == tokenAnd || token == tokenOr:
		left, err := s.pop()
		if err != nil {
			return err
		}
		if isLogic != left.result {
			return fmt.Errorf("%w: operand of %s", ErrFormat, op)
		}
		depth = max(depth, left.depth+1)
		text = "(" + left.text + " " + op + " " + right.text + ")"
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: more than %d operators inside one another", ErrFormat, maxDepth)
	}
	s.terms = append(s.terms, term{text, true, depth})
	return nil
}

// operand prints a literal or an attribute.
func (s *conditionStack) operand(token byte, depth int) (string, error) {
	if token >= 1 && token <= tokenInt64 {
		return s.integer()
	}
	b := s.c.take(int(min(int64(s.c.uint32()), int64(len(s.c.b)+1))))
	if s.c.short {
		return "", fmt.Errorf("%w: token %#x does not end", ErrFormat, token)
	}
	switch {
	case token == tokenString && len(b)%2 == 0:
		return quote(DecodeUTF16(b))
	case token == tokenOctets:
		return "#" + hex.EncodeToString(b), nil
	case token == tokenSID:
		sid, err := DecodeSID(b)
		if err == nil && sid.Len() != len(b) {
			err = fmt.Errorf("%w: a SID in %d bytes", ErrFormat, len(b))
		}
		return "SID(" + s.names.sidText(sid) + ")", err
	case token >= tokenLocal && len(b)%2 == 0 && int(token-tokenLocal) < len(attributePrefixes):
		return attributeText(token, DecodeUTF16(b))
	case token == tokenComposite && depth < maxDepth:
		return s.composite(b, depth)
	}
	return "", fmt.Errorf("%w: token %#x with %d bytes", ErrFormat, token, len(b))
}

func (s *conditionStack) composite(b []byte, depth int) (string, error) {
	inner := conditionStack{names: s.names, c: cursor{b: b}}
	var items []string
	for len(inner.c.b) > 0 {
		item, err := inner.operand(inner.c.take(1)[0], depth+1)
		if err != nil {
			return "", err
		}
		items = append(items, item)
	}
	return "{" + strings.Join(items, ", ") + "}", nil
}

func (s *conditionStack) integer() (string, error) {
	b := s.c.take(10)
	if b == nil {
		return "", fmt.Errorf("%w: an integer does not end", ErrFormat)
	}
	n := int64(binary.LittleEndian.Uint64(b))
	format := "%d"
	switch b[9] {
	case 1:
		format = "%#o"
	case 3:
		format = "%#x"
	}
	if b[8] == 1 && n >= 0 {
		format = "+" + format
	}
	return fmt.Sprintf(format, n), nil
}

func isAttributeByte(c byte) bool {
	return isAlnum(c) || c >= 0x80 || strings.IndexByte(":./_", c) >= 0
}

// attributeText prints an attribute's name; what its grammar has no place for
// is written as % and four digits.
func attributeText(token byte, name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("%w: an attribute without a name", ErrFormat)
	}
	b := []byte(attributePrefixes[token-tokenLocal])
	for i := range len(name) {
		if c := name[i]; isAttributeByte(c) {
			b = append(b, c)
		} else {
			b = fmt.Appendf(b, "%%%04x", c)
		}
	}
	return string(b), nil
}
