//! WebAssembly that no compiler would emit, written byte by byte.

/// A component with one core module of a function that takes a compiler minutes: thousands of
/// values that are all alive across thousands of branches.
pub fn slow_to_compile() -> Vec<u8> {
    const LOCALS: u32 = 4000;
    const BRANCHES: u32 = 8000;
    let mut body = Vec::new();
    // One group of locals, of type i64.
    body.extend([1]);
    unsigned(&mut body, LOCALS);
    body.push(0x7e);
    for branch in 0..BRANCHES {
        // if local == 0 …
        body.push(0x20);
        unsigned(&mut body, branch % LOCALS);
        body.extend([0x50, 0x04, 0x40]);
        for step in 0..20 {
            // … then local = local + other * local.
            let local = (branch * 20 + step) % LOCALS;
            let other = (local * 7 + branch * 13 + 1) % LOCALS;
            for operand in [local, other, local] {
                body.push(0x20);
                unsigned(&mut body, operand);
            }
            body.extend([0x7e, 0x7c, 0x21]);
            unsigned(&mut body, local);
        }
        body.push(0x0b);
    }
    // All of them are in the result, so that none can be left out.
    body.extend([0x42, 0]);
    for local in 0..LOCALS {
        body.push(0x20);
        unsigned(&mut body, local);
        body.push(0x85);
    }
    body.push(0x0b);

    let mut function = Vec::new();
    unsigned(&mut function, body.len() as u32);
    function.extend(body);
    let mut code = vec![1];
    code.extend(function);

    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // One type: no parameters, one i64.
    section(&mut module, 1, &[1, 0x60, 0, 1, 0x7e]);
    section(&mut module, 3, &[1, 0]);
    section(&mut module, 10, &code);

    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    section(&mut component, 1, &module);
    component
}

fn section(to: &mut Vec<u8>, id: u8, content: &[u8]) {
    to.push(id);
    unsigned(to, content.len() as u32);
    to.extend(content);
}

/// LEB128.
fn unsigned(to: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// The same component, with this many further tables of 100,000 elements in its largest module.
pub fn with_tables(component: &[u8], tables: u32) -> Vec<u8> {
    const ELEMENTS: u32 = 100_000;
    let modules = sections(&component[8..]).filter(|(id, _)| *id == 1);
    let largest = modules.map(|(_, module)| module.len()).max();
    let mut out = component[..8].to_vec();
    for (id, content) in sections(&component[8..]) {
        if id != 1 || Some(content.len()) != largest {
            section(&mut out, id, content);
            continue;
        }
        let mut module = content[..8].to_vec();
        for (id, content) in sections(&content[8..]) {
            if id != 4 {
                section(&mut module, id, content);
                continue;
            }
            let (count, rest) = read_unsigned(content);
            let mut more = Vec::new();
            unsigned(&mut more, count + tables);
            more.extend(rest);
            for _ in 0..tables {
                // Of functions, with a minimum and a maximum.
                more.extend([0x70, 1]);
                unsigned(&mut more, ELEMENTS);
                unsigned(&mut more, ELEMENTS);
            }
            section(&mut module, id, &more);
        }
        section(&mut out, id, &module);
    }
    out
}

/// Sections of a module or component, without its preamble.
fn sections(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&id, rest) = bytes.split_first()?;
        let (length, rest) = read_unsigned(rest);
        let (content, rest) = rest.split_at(length as usize);
        bytes = rest;
        Some((id, content))
    })
}

/// LEB128, and what follows.
fn read_unsigned(bytes: &[u8]) -> (u32, &[u8]) {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return (value, &bytes[at + 1..]);
        }
    }
    panic!("a number has an end");
}
