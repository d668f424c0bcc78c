// Package state keeps one JSON record per object of a kind: a container, a network, a layer.
//
// A [Store] is a directory. Every object in it is a directory of its own, named by its id, which holds the record; the
// owner of the store may keep the object's other files beside it.
//
//	<dir>/<id>/record.json    the record, replaced by rename
//	<dir>/<id>/.record-*      a record being written, or left by a writer that died
//	<dir>/.lock/<id>          the object's lock, there while it is held or the object exists
//
// Many short processes and some long ones use a store at the same time, without a daemon between them. A reader needs no
// lock: it sees the old record or the new one, whatever happens to the writer. Whoever reads a record, decides and writes
// it back holds the object's lock meanwhile.
//
// It is not a database: there are no transactions over several objects and no queries, and a record is read whole.
package state
