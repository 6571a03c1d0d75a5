//! A manufactured swtpm, with a proxy and resource managers before it, for `scripts/bench`.
//!
//! Prints `tpm TCTI`, `proxy TCTI` and `ready`. Then the program answers each line of standard
//! input with a line. The program ends at the end of its input.
//!
//! | line | answer and effect |
//! |---|---|
//! | `manager` | starts a resource manager for one client, and answers with its TCTI |
//! | `take` | answers with the TPM commands since the last `take` |
//! | `delay MS` | delays each command by MS milliseconds |
#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::io::{self, BufRead, Write};
use std::time::Duration;
use testkit::home::Home;
use testkit::managers::Kernel;
use testkit::proxy::Proxy;
use testkit::tpm::Swtpm;

fn main() {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    println!("tpm {}\nproxy {}\nready", tpm.tcti(), proxy.tcti());
    let mut managers: Vec<(Home, Kernel)> = Vec::new();
    let mut delay = None;
    for line in io::stdin().lock().lines() {
        let line = line.expect("a line");
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "manager" => {
                // The device is in its own home folder.
                let home = Home::new("");
                let kernel = Kernel::new(&tpm, &home);
                kernel.book().delay_each(delay);
                println!("{}", kernel.tcti());
                managers.push((home, kernel));
            }
            "take" => {
                let codes = proxy.book().take().0;
                let codes: Vec<_> = codes.iter().map(|(code, _)| format!("{code:x}")).collect();
                println!("{}", codes.join(" "));
            }
            "delay" => {
                let time = rest.parse().expect("milliseconds");
                delay = (time > 0).then(|| Duration::from_millis(time));
                proxy.book().delay_each(delay);
                for (_, kernel) in &managers {
                    kernel.book().delay_each(delay);
                }
                println!("ok");
            }
            _ => println!("unknown"),
        }
        io::stdout().flush().expect("written");
    }
}
