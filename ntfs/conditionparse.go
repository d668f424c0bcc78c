package ntfs

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"
)

// condition reads a conditional expression in parentheses and returns its
// binary form, padded to 4 bytes.
func (p *sddlParser) condition() ([]byte, error) {
	if !p.eat("(") {
		return nil, p.fail("want a condition in parentheses")
	}
	b, err := p.or([]byte(conditionMagic))
	if err != nil {
		return nil, err
	}
	if !p.eat(")") {
		return nil, p.fail("want the end of a condition")
	}
	b = append(b, make([]byte, -len(b)&3)...)
	if _, err := p.names.ConditionText(b); err != nil { // it is deeper than what is printed
		return nil, p.fail("%v", err)
	}
	return b, nil
}

func (p *sddlParser) or(b []byte) ([]byte, error) {
	return p.chain(b, "||", tokenOr, func(b []byte) ([]byte, error) {
		return p.chain(b, "&&", tokenAnd, p.unary)
	})
}

// chain reads terms with an operator between them.
func (p *sddlParser) chain(b []byte, op string, token byte, next func([]byte) ([]byte, error)) ([]byte, error) {
	b, err := next(b)
	for count := 1; err == nil && p.eat(op); count++ {
		if count == maxDepth {
			return nil, p.fail("more than %d operators in a row", maxDepth)
		}
		if b, err = next(b); err == nil {
			b = append(b, token)
		}
	}
	return b, err
}

func (p *sddlParser) unary(b []byte) ([]byte, error) {
	if p.depth++; p.depth > 2*maxDepth {
		return nil, p.fail("more than %d operators inside one another", 2*maxDepth)
	}
	defer func() { p.depth-- }()
	if !strings.HasPrefix(p.rest(), "!=") && p.eat("!") {
		b, err := p.unary(b)
		return append(b, tokenNot), err
	}
	if p.eat("(") {
		b, err := p.or(b)
		if err == nil && !p.eat(")") {
			err = p.fail("want a closing parenthesis")
		}
		return b, err
	}
	return p.relation(b)
}

// word moves over a keyword that no letter, digit or other part of a name
// follows.
func (p *sddlParser) word(text string) bool {
	start := p.at
	if p.eat(text) && (p.at == len(p.text) || !isAttributeByte(p.text[p.at])) {
		return true
	}
	p.at = start
	return false
}

func (p *sddlParser) relation(b []byte) ([]byte, error) {
	for _, m := range memberships {
		if p.word(m.text) {
			b, err := p.operand(b)
			return append(b, m.token), err
		}
	}
	for text, token := range map[string]byte{"Exists": tokenExists, "Not_Exists": tokenNotExists} {
		if p.word(text) {
			b, err := p.attribute(b)
			return append(b, token), err
		}
	}
	b, err := p.attribute(b)
	if err != nil {
		return nil, err
	}
	for _, c := range comparisons {
		if isAlnum(c.text[0]) && p.word(c.text) || !isAlnum(c.text[0]) && p.eat(c.text) {
			b, err := p.operand(b)
			return append(b, c.token), err
		}
	}
	return nil, p.fail("want an operator")
}

func appendSized(b []byte, token byte, content []byte) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, token), uint32(len(content)))
	return append(b, content...)
}

func (p *sddlParser) attribute(b []byte) ([]byte, error) {
	token := byte(tokenLocal)
	for i, prefix := range attributePrefixes[1:] {
		if p.eat(prefix) {
			token += byte(i + 1)
			break
		}
	}
	p.space()
	var name []byte
	for p.at < len(p.text) {
		c := p.text[p.at]
		if c == '%' && p.at+5 <= len(p.text) {
			n, err := strconv.ParseUint(p.text[p.at+1:p.at+5], 16, 16)
			if err != nil {
				return nil, p.fail("want four hexadecimal digits after %%")
			}
			name = appendWTF8(name, rune(n))
			p.at += 5
			continue
		}
		if !isAttributeByte(c) {
			break
		}
		name = append(name, c)
		p.at++
	}
	if len(name) == 0 {
		return nil, p.fail("want an attribute")
	}
	return appendSized(b, token, AppendUTF16(nil, string(name))), nil
}

// operand reads a literal, a list of them, or an attribute.
func (p *sddlParser) operand(b []byte) ([]byte, error) {
	p.space()
	rest := p.rest()
	switch {
	case rest == "":
		return nil, p.fail("want an operand")
	case rest[0] == '"':
		text, err := p.quoted()
		return appendSized(b, tokenString, AppendUTF16(nil, text)), err
	case rest[0] == '#':
		p.at++
		octets, err := hex.DecodeString(p.until(" ,})&|"))
		if err != nil {
			return nil, p.fail("want hexadecimal digits")
		}
		return appendSized(b, tokenOctets, octets), nil
	case p.eat("SID("):
		s, err := p.sid()
		if err == nil && !p.eat(")") {
			err = p.fail("want the end of SID(")
		}
		return appendSized(b, tokenSID, s.Append(nil)), err
	case p.eat("{"):
		return p.composite(b)
	case strings.IndexByte("+-0123456789", rest[0]) >= 0:
		return p.integer(b)
	}
	return p.attribute(b)
}

func (p *sddlParser) composite(b []byte) ([]byte, error) {
	if p.depth++; p.depth > 2*maxDepth {
		return nil, p.fail("more than %d lists inside one another", 2*maxDepth)
	}
	defer func() { p.depth-- }()
	var items []byte
	for first := true; !p.eat("}"); first = false {
		if !first && !p.eat(",") {
			return nil, p.fail("want a comma")
		}
		var err error
		if items, err = p.operand(items); err != nil {
			return nil, err
		}
	}
	return appendSized(b, tokenComposite, items), nil
}

// integer reads a number; it is stored as 64 bits with its sign and base.
func (p *sddlParser) integer(b []byte) ([]byte, error) {
	text := p.until(" ,})&|")
	sign := byte(3)
	switch text[0] {
	case '+':
		sign = 1
	case '-':
		sign = 2
	}
	base, digits := byte(2), strings.TrimLeft(text, "+-")
	switch {
	case strings.HasPrefix(digits, "0x"):
		base = 3
	case len(digits) > 1 && digits[0] == '0':
		base = 1
	}
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil || strings.IndexByte(text, '_') >= 0 {
		return nil, p.fail("want a number, not %q", text)
	}
	b = binary.LittleEndian.AppendUint64(append(b, tokenInt64), uint64(n))
	return append(b, sign, base), nil
}
