// SPDX-License-Identifier: GPL-2.0-or-later
// Panics, closures, trait objects, threads.
use std::hint::black_box;
use std::panic;
use std::thread;

fn size(k: usize) -> usize {
    1_000_000 + 1000 * k
}

#[inline(never)]
fn leak(k: usize) {
    let v: Vec<u8> = Vec::with_capacity(size(k));
    std::mem::forget(black_box(v));
}

struct Guard(usize);

impl Drop for Guard {
    #[inline(never)]
    fn drop(&mut self) {
        leak(self.0);
    }
}

trait Act {
    fn act(&self, k: usize);
}

impl Act for Guard {
    #[inline(never)]
    fn act(&self, k: usize) {
        leak(k + self.0 * 0);
        black_box(self.0);
    }
}

#[inline(never)]
fn fails(n: usize) -> usize {
    let _guard = Guard(1);
    let empty: Vec<usize> = Vec::new();
    empty[black_box(n)]
}

#[inline(never)]
fn recurse(depth: usize, k: usize) -> usize {
    if depth == 0 {
        leak(k);
        return black_box(1);
    }
    recurse(depth - 1, k) + black_box(depth)
}

fn main() {
    panic::set_hook(Box::new(|_| leak(2)));
    let _ = panic::catch_unwind(|| fails(3));
    leak(3);
    let b: Box<dyn Act> = Box::new(Guard(4));
    b.act(5);
    drop(b);
    recurse(60, 6);
    let mut v: Vec<i32> = (0..100).map(|i| (i * 37) % 100).collect();
    let mut done = false;
    v.sort_by(|a, b| {
        if !done {
            leak(7);
            done = true;
        }
        a.cmp(b)
    });
    thread::spawn(|| {
        leak(8);
        let _ = panic::catch_unwind(|| panic!("again"));
    })
    .join()
    .unwrap();
    let zeroed = vec![0u8; size(9)];
    std::mem::forget(black_box(zeroed));
    let s = "x".repeat(size(10));
    std::mem::forget(black_box(s));
    black_box(v);
}
