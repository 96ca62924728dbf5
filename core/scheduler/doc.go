// Package scheduler makes the world match the rows. Requests become rows and
// return at once; each open operation is then driven through the fixed list of
// steps of its kind by one worker per sandbox.
//
// A step's beginning is committed before the plugin is called and its result
// after, so a restart calls the same step again, which the contracts allow. A
// step that fails for good starts the undo of what the operation made, in
// reverse, which is resumed after a restart too. Guests and the API only leave
// inputs in rows; the worker alone changes states.
package scheduler
