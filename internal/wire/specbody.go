package wire

// Encode returns the body.
func (s *Spec) Encode() []byte {
	var e encoder
	e.strings([]string{s.ID, s.Dir, s.Cgroup, s.Status, s.Handles})
	s.Root.encode(&e)
	e.strings([]string{s.Runtime.Path, s.Runtime.Kind})
	if e.bool(s.Native != nil); s.Native != nil {
		s.Native.encode(&e)
	}
	e.string(s.Log.Path)
	e.uints(uint64(s.Log.MaxSize), uint64(s.Log.MaxFiles))
	e.strings(s.Remove)
	e.strings([]string{s.Events.Dir, s.Events.Alive, s.Events.Name, s.Events.Image})
	e.bool(s.Events.Ephemeral)
	encodeList(&e, s.Disks, func(d *Disk) {
		e.strings([]string{d.Image, d.Type, d.Target})
		e.uint(uint64(d.Size))
		e.bool(d.ReadOnly)
	})
	e.strings(s.Targets)
	e.bool(s.NeedsProcess)
	e.bool(s.ShowNetwork)
	e.bool(s.CountProcesses)
	return e.b
}

// Decode reads the body.
func (s *Spec) Decode(body []byte) error {
	d := decoder{b: body}
	*s = Spec{}
	d.fixed(&s.ID, &s.Dir, &s.Cgroup, &s.Status, &s.Handles)
	s.Root.decode(&d)
	d.fixed(&s.Runtime.Path, &s.Runtime.Kind)
	if d.bool() {
		s.Native = new(Native)
		s.Native.decode(&d)
	}
	s.Log = Log{Path: d.string(), MaxSize: int64(d.uint()), MaxFiles: int(d.uint())}
	s.Remove = d.strings()
	d.fixed(&s.Events.Dir, &s.Events.Alive, &s.Events.Name, &s.Events.Image)
	s.Events.Ephemeral = d.bool()
	s.Disks = decodeList(&d, func(v *Disk) {
		d.fixed(&v.Image, &v.Type, &v.Target)
		v.Size, v.ReadOnly = int64(d.uint()), d.bool()
	})
	s.Targets, s.NeedsProcess, s.ShowNetwork, s.CountProcesses = d.strings(), d.bool(), d.bool(), d.bool()
	return d.end()
}

func (r *Root) encode(e *encoder) {
	e.strings([]string{r.Dir, r.Upper, r.Work})
	e.strings(r.Lower)
	e.bool(r.UserXattr)
	e.bool(r.Volatile)
}

func (r *Root) decode(d *decoder) {
	d.fixed(&r.Dir, &r.Upper, &r.Work)
	r.Lower, r.UserXattr, r.Volatile = d.strings(), d.bool(), d.bool()
}

// encode leaves the birth out.
func (n *Native) encode(e *encoder) {
	e.string(string(n.Build))
	encodeList(e, n.Lent, func(l *Lent) {
		e.string(l.Source)
		e.bool(l.Recursive)
		e.uint(l.Attributes)
		e.bool(l.Mapped)
	})
}

func (n *Native) decode(d *decoder) {
	n.Build = []byte(d.string())
	n.Lent = decodeList(d, func(l *Lent) {
		*l = Lent{Source: d.string(), Recursive: d.bool(), Attributes: d.uint(), Mapped: d.bool()}
	})
}
