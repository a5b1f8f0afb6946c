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

/// The same component, which as soon as it starts has this many further tables grow to 100,000
/// elements, and writes to all of them.
pub fn with_filled_tables(component: &[u8], tables: u32) -> Vec<u8> {
    const ELEMENTS: u32 = 100_000;
    let modules = sections(&component[8..]).filter(|(id, _)| *id == 1);
    let largest = modules.map(|(_, module)| module.len()).max();
    let mut out = component[..8].to_vec();
    for (id, content) in sections(&component[8..]) {
        if id == 1 && Some(content.len()) == largest {
            section(&mut out, id, &filled(content, tables, ELEMENTS));
        } else {
            section(&mut out, id, content);
        }
    }
    out
}

/// A core module with a start function that grows and fills further tables.
fn filled(module: &[u8], tables: u32, elements: u32) -> Vec<u8> {
    let count = |wanted: u8| {
        let mut found = sections(&module[8..]).filter(|(id, _)| *id == wanted);
        found
            .next()
            .map_or(0, |(_, content)| read_unsigned(content).0)
    };
    assert_eq!(count(8), 0, "it has no start function");
    let (types, functions, own_tables) = (count(1), count(3), count(4));
    let imports = sections(&module[8..]).filter(|(id, _)| *id == 2);
    let imported: u32 = imports.map(|(_, content)| functions_of(content)).sum();
    // (func) without parameters and results.
    let function_type = vec![0x60, 0, 0];
    let mut type_index = Vec::new();
    unsigned(&mut type_index, types);
    let mut more_tables = Vec::new();
    let mut body = vec![0];
    for table in own_tables..own_tables + tables {
        // Of functions, empty at first, with a maximum.
        more_tables.extend([0x70, 1, 0]);
        unsigned(&mut more_tables, elements);
        // table.grow, and drop its result.
        body.extend([0xd0, 0x70, 0x41]);
        signed(&mut body, elements);
        body.extend([0xfc, 0x0f]);
        unsigned(&mut body, table);
        body.push(0x1a);
        // table.fill
        body.extend([0x41, 0, 0xd0, 0x70, 0x41]);
        signed(&mut body, elements);
        body.extend([0xfc, 0x11]);
        unsigned(&mut body, table);
    }
    body.push(0x0b);
    let mut code = Vec::new();
    unsigned(&mut code, body.len() as u32);
    code.extend(body);
    let mut start = Vec::new();
    unsigned(&mut start, imported + functions);

    let mut out = module[..8].to_vec();
    let mut has_start = false;
    for (id, content) in sections(&module[8..]) {
        // Elements, the number of data segments, code: the start function stands before them.
        if [9, 12, 10].contains(&id) && !std::mem::replace(&mut has_start, true) {
            section(&mut out, 8, &start);
        }
        let (added, items) = match id {
            1 => (1, &function_type),
            3 => (1, &type_index),
            4 => (tables, &more_tables),
            10 => (1, &code),
            _ => {
                section(&mut out, id, content);
                continue;
            }
        };
        let (count, rest) = read_unsigned(content);
        let mut more = Vec::new();
        unsigned(&mut more, count + added);
        more.extend(rest);
        more.extend(items);
        section(&mut out, id, &more);
    }
    out
}

/// The functions among the imports of a core module, which has no other imports.
fn functions_of(imports: &[u8]) -> u32 {
    let (count, mut rest) = read_unsigned(imports);
    for _ in 0..count {
        for _ in ["module", "name"] {
            let (length, text) = read_unsigned(rest);
            rest = &text[length as usize..];
        }
        assert_eq!(rest[0], 0, "it imports functions only");
        rest = read_unsigned(&rest[1..]).1;
    }
    count
}

/// LEB128 of a number that is not negative, where one is allowed to be.
fn signed(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x40 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
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
