package disk_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/hostcompute/hcs/disk"
	"github.com/hostcompute/hcs/internal/testenv"
)

func partitioned(t testing.TB, size, sector int64) (*memory, disk.Table) {
	t.Helper()
	table, err := disk.WindowsTable(size, sector, seeded(1))
	must(t, err)
	f := &memory{}
	must(t, f.Truncate(size))
	must(t, disk.WriteTable(f, size, table))
	return f, table
}

func TestTable(t *testing.T) {
	t.Parallel()
	for _, sector := range []int64{512, 4096} {
		f, want := partitioned(t, 40*mib+8192, sector)
		for _, damage := range []func(){func() {}, func() { _, _ = f.WriteAt([]byte("x"), sector+60) }} { // the first header, then its copy
			damage()
			got, err := disk.ReadTable(f, f.size)
			must(t, err)
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
		_, _ = f.WriteAt([]byte("x"), f.size/sector*sector-sector+60)
		if _, err := disk.ReadTable(f, f.size); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "GPT header at offset") {
			t.Errorf("both damaged: %v", err)
		}
	}
}

func TestBadTables(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*disk.Table){
		"overlap":     func(t *disk.Table) { t.Partitions[1].Offset = t.Partitions[0].Offset },
		"too early":   func(t *disk.Table) { t.Partitions[0].Offset = 512 },
		"too late":    func(t *disk.Table) { t.Partitions[1].Size += 2 * mib },
		"no sector":   func(t *disk.Table) { t.Partitions[1].Offset++ },
		"empty":       func(t *disk.Table) { t.Partitions[1].Size = 0 },
		"no type":     func(t *disk.Table) { t.Partitions[1].Type = guid.GUID{} },
		"long name":   func(t *disk.Table) { t.Partitions[1].Name = strings.Repeat("x", 37) },
		"sector size": func(t *disk.Table) { t.SectorSize = 1000 },
	} {
		table, err := disk.WindowsTable(40*mib, 512, seeded(1))
		must(t, err)
		change(&table)
		if err := disk.WriteTable(&memory{}, 40*mib, table); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := disk.WindowsTable(10*mib, 512, seeded(1)); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("small disk: %v", err)
	}
}

// TestTablePrograms has sgdisk and sfdisk verify a table, before and after the disk has grown.
func TestTablePrograms(t *testing.T) {
	t.Parallel()
	tools := testenv.NeedCommand(t, "sgdisk", "sfdisk")
	path := filepath.Join(t.TempDir(), "disk.raw")
	size := int64(100*mib + 512)
	d := mustDisk(t)(disk.CreateFile(path, disk.Options{Size: size}))
	table, err := disk.WindowsTable(size, 512, seeded(2))
	must(t, err)
	for range 2 {
		must(t, disk.WriteTable(d, size, table))
		must(t, d.Sync())
		if out := run(t, tools[0], "-v", path); !strings.Contains(out, "No problems found") || strings.Contains(out, "Caution") {
			t.Errorf("sgdisk: %s", out)
		}
		var got struct {
			Table struct {
				ID         string
				Partitions []struct {
					Start, Size int64
					Type, UUID  string
					Name        string
				}
			} `json:"partitiontable"`
		}
		run(t, tools[1], "--verify", path)
		must(t, json.Unmarshal([]byte(run(t, tools[1], "--json", path)), &got))
		if len(got.Table.Partitions) != len(table.Partitions) || !strings.EqualFold(got.Table.ID, table.ID.String()) {
			t.Fatalf("sfdisk sees %+v", got)
		}
		for i, p := range table.Partitions {
			q := got.Table.Partitions[i]
			if q.Start*512 != p.Offset || q.Size*512 != p.Size || !strings.EqualFold(q.Type, p.Type.String()) ||
				!strings.EqualFold(q.UUID, p.ID.String()) || q.Name != p.Name {
				t.Errorf("sfdisk sees %+v, want %+v", q, p)
			}
		}
		size += 50 * mib
		must(t, d.Resize(size))
		must(t, table.Grow(size))
	}
	must(t, d.Close())

	// And the other way: a table by sgdisk.
	must(t, os.Truncate(path, 0))
	must(t, os.Truncate(path, 64*mib))
	run(t, tools[0], "-o", "-n", "1:2048:+10M", "-t", "1:0c01", "-n", "2:0:0", "-t", "2:0700", "-c", "2:Daten", path)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	table, err = disk.ReadTable(f, 64*mib)
	must(t, err)
	if len(table.Partitions) != 2 || table.Partitions[0].Type != disk.MicrosoftReserved || table.Partitions[0].Size != 10*mib ||
		table.Partitions[1].Type != disk.BasicData || table.Partitions[1].Name != "Daten" {
		t.Errorf("got %+v", table)
	}
}
