package cli

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/hostcompute/hcs/bundle"
)

// mappingFlags say how owners in images are owners on disk.
type mappingFlags struct {
	uids, gids []string
	rootless   bool
}

func (m *mappingFlags) addFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&m.uids, "uid-map", nil, "specifies a uid mapping to use (`container:host:size`)")
	f.StringArrayVar(&m.gids, "gid-map", nil, "specifies a gid mapping to use (`container:host:size`)")
	f.BoolVar(&m.rootless, "rootless", false, "enable rootless command support")
}

func (m *mappingFlags) parse() (bundle.Mappings, error) {
	to := bundle.Mappings{Rootless: m.rootless}
	for _, list := range []struct {
		flags []string
		to    *[]specs.LinuxIDMapping
	}{{m.uids, &to.UIDs}, {m.gids, &to.GIDs}} {
		for _, s := range list.flags {
			mapping, err := bundle.ParseMapping(s)
			if err != nil {
				return to, err
			}
			*list.to = append(*list.to, mapping)
		}
	}
	return to.WithDefaults(), nil
}
