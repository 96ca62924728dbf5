// Package guest plays what runs inside the simulated machines: each machine
// that is on speaks the guest API from its own address, as the real runner
// does, and "runs" its job by words in the task text.
//
//	sim:sleep=2s        work for so long
//	sim:beat            work until the first sign of life was given
//	sim:print=TEXT      write a line to the log
//	sim:log=1MB         write so much to the log
//	sim:leak=NAME       write the value of a secret to the log, unredacted
//	sim:artifact=N:1KB  leave a file of that name and size
//	sim:exit=3          end with that code; 0 when there is no such word
//	sim:hang            work until the job is stopped or its time is over
//	sim:stuck           work for ever, deaf to both
//	sim:silent          give no more sign of life
//	sim:poweroff        turn the machine off
//	sim:reboot          reboot it
//
// A guest without a job gives signs of life until the host has one for it, and
// then fetches its payload again.
//
// What a guest must remember is on its disk in the world, so that after a kill
// of the plugin the next one plays on from there.
package guest
