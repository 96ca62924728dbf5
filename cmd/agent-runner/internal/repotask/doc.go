// Package repotask does git work in a process of its own that runs as the
// agent's user, so that nothing in a hostile repository is ever read with the
// runner's rights.
package repotask
