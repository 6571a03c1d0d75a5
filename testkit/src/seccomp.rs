//! Denies system calls, as the filters of containers and services do (seccomp(2)).

use std::ffi::{c_int, c_long, c_ushort};

/// Denies these system calls to this thread and its children permanently, with this error number.
pub fn deny(calls: &[c_long], error: c_int) {
    let mut program = vec![statement(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0, // the first field of the filter's input is the number of the call
    )];
    for call in calls {
        let number = u32::try_from(*call).expect("a number of a call");
        program.push(libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number)
        });
        let answer = libc::SECCOMP_RET_ERRNO | u32::try_from(error).expect("an error number");
        program.push(statement(libc::BPF_RET | libc::BPF_K, answer));
    }
    let rest = libc::SECCOMP_RET_ALLOW;
    program.push(statement(libc::BPF_RET | libc::BPF_K, rest));
    let program = libc::sock_fprog {
        len: c_ushort::try_from(program.len()).expect("a short program"),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: prctl(2) copies the program. The program is complete and lives until prctl(2)
    // returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let filter = libc::SECCOMP_MODE_FILTER;
        let set = libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program);
        assert_eq!(set, 0, "a filter of system calls");
    }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: c_ushort::try_from(code).expect("a code"),
        jt: 0,
        jf: 0,
        k,
    }
}
