package accel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of the KVM API (linux/kvm.h), stable since version 12.
const (
	kvmAPIVersion     = 0xae00
	kvmCreateVM       = 0xae01
	kvmRunSize        = 0xae04
	kvmCreateVCPU     = 0xae41
	kvmSetRegion      = 0x4020ae46
	kvmRun            = 0xae80
	kvmSetRegs        = 0x4090ae82
	kvmGetSregs       = 0x8138ae83
	kvmSetSregs       = 0x4138ae84
	exitReasonOffset  = 8
	exitHalt          = 5
	wantedAPI         = 12
	codeAddress       = 0x1000
	guestMemory       = 0x10000
	loopCount         = 50_000
	instructionsOfOne = 2
	// The loop takes 1 ms where KVM works and some 50 ms where every
	// instruction is emulated.
	loopDeadline = 2 * time.Second
)

// guestLoop is real-mode code: mov ecx, loopCount; dec ecx; jnz; hlt.
var guestLoop = []byte{
	0x66, 0xb9, loopCount & 0xff, loopCount >> 8 & 0xff, loopCount >> 16 & 0xff, 0x00,
	0x66, 0x49, 0x75, 0xfc, 0xf4,
}

// Measure executes a guest of three instructions and gives its speed in
// instructions per second. An error says why KVM cannot be used at all.
func Measure(ctx context.Context, device string) (float64, error) {
	var best float64
	for range 3 {
		speed, err := measureOnce(ctx, device)
		if err != nil {
			return 0, err
		}
		best = max(best, speed)
	}
	return best, nil
}

func measureOnce(ctx context.Context, device string) (float64, error) {
	kvm, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer kvm.Close()
	if v, err := ioctl(kvm.Fd(), kvmAPIVersion, 0); err != nil || v != wantedAPI {
		return 0, fmt.Errorf("kvm speaks api %d, want %d: %w", v, wantedAPI, err)
	}
	vm, err := ioctl(kvm.Fd(), kvmCreateVM, 0)
	if err != nil {
		return 0, fmt.Errorf("create vm: %w", err)
	}
	defer unix.Close(int(vm))
	memory, err := unix.Mmap(-1, 0, guestMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("map guest memory: %w", err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	copy(memory[codeAddress:], guestLoop)
	region := struct {
		slot, flags         uint32
		guest, size, userAt uint64
	}{size: guestMemory, userAt: uint64(uintptr(unsafe.Pointer(&memory[0])))}
	if _, err := ioctl(vm, kvmSetRegion, uintptr(unsafe.Pointer(&region))); err != nil {
		return 0, fmt.Errorf("set guest memory: %w", err)
	}
	size, err := ioctl(kvm.Fd(), kvmRunSize, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for size of vcpu: %w", err)
	}
	return runVCPU(ctx, vm, int(size))
}

func runVCPU(ctx context.Context, vm uintptr, size int) (float64, error) {
	// A vCPU belongs to its thread, and the thread is what a signal stops.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	vcpu, err := ioctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return 0, fmt.Errorf("create vcpu: %w", err)
	}
	defer unix.Close(int(vcpu))
	state, err := unix.Mmap(int(vcpu), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("map vcpu: %w", err)
	}
	defer func() { _ = unix.Munmap(state) }()
	if err := setRegisters(vcpu); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, loopDeadline)
	defer cancel()
	stop := interruptAfter(ctx)
	defer stop()
	begun := time.Now()
	for ctx.Err() == nil {
		_, err := ioctl(vcpu, kvmRun, 0)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("run vcpu: %w", err)
		}
		if reason := *(*uint32)(unsafe.Pointer(&state[exitReasonOffset])); reason != exitHalt {
			return 0, fmt.Errorf("guest left with reason %d, not by its halt", reason)
		}
		return loopCount * instructionsOfOne / time.Since(begun).Seconds(), nil
	}
	return 0, fmt.Errorf("guest loop: %w", ctx.Err())
}

func setRegisters(vcpu uintptr) error {
	var sregs [312]byte
	if _, err := ioctl(vcpu, kvmGetSregs, uintptr(unsafe.Pointer(&sregs[0]))); err != nil {
		return fmt.Errorf("read segments: %w", err)
	}
	clear(sregs[0:8])   // cs.base
	clear(sregs[12:14]) // cs.selector
	if _, err := ioctl(vcpu, kvmSetSregs, uintptr(unsafe.Pointer(&sregs[0]))); err != nil {
		return fmt.Errorf("write segments: %w", err)
	}
	regs := [18]uint64{16: codeAddress, 17: 2} // rip, rflags
	if _, err := ioctl(vcpu, kvmSetRegs, uintptr(unsafe.Pointer(&regs[0]))); err != nil {
		return fmt.Errorf("write registers: %w", err)
	}
	return nil
}

// interruptAfter sends this thread a signal the Go runtime ignores once ctx
// ends, and again until the guest has been left.
func interruptAfter(ctx context.Context) (stop func()) {
	pid, tid := unix.Getpid(), unix.Gettid()
	left, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-left:
			return
		case <-ctx.Done():
		}
		for {
			_ = unix.Tgkill(pid, tid, unix.SIGURG)
			select {
			case <-left:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() { close(left); <-done }
}

func ioctl(fd, request, arg uintptr) (uintptr, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, arg)
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}
