//! The types themselves: made from slots when the module is made.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
    sync::atomic::Ordering::Relaxed,
};

use pyo3::{
    exceptions::PyRuntimeError,
    ffi::{self, PyObject},
    prelude::*,
};

use super::{
    binding, cell,
    context::{self, Context},
    disabled::{self, Disabled},
    metric, scope, stack,
};

/// A built-in method by the protocol of fast calls with keywords.
type FastWithKeywords =
    unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, ffi::Py_ssize_t, *mut PyObject) -> *mut PyObject;

/// Makes the types, the stack's variable and the disabled context.
pub(crate) fn set_up(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let python = module.py();
    // From 3.14 `with` calls ordinary methods without binding them.
    let has_fast_methods = python.version_info() >= (3, 14);
    // SAFETY: the thread is attached; every slot has the function that its number asks for.
    unsafe {
        let variable = ffi::PyContextVar_New(c"kastor_scope".as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(python, ffi::Py_XNewRef(variable))?;
        stack::VARIABLE.store(variable, Relaxed);

        let scope_type = scope_type(python, has_fast_methods)?;
        cell::TYPE.store(scope_type.as_ptr().cast(), Relaxed);
        module.add("Scope", &scope_type)?;

        let context_type = context_type(python)?;
        context::TYPE.store(context_type.as_ptr().cast(), Relaxed);
        module.add("Context", &context_type)?;

        let disabled_type = disabled_type(python, has_fast_methods)?;
        let singleton = Bound::from_owned_ptr_or_err(python, disabled::new(disabled_type.as_ptr().cast()))?;
        if !has_fast_methods {
            for method in leaked(disabled_with_methods()).iter_mut().take(2) {
                let function = ffi::PyCFunction_NewEx(method, singleton.as_ptr(), ptr::null_mut());
                let function = Bound::from_owned_ptr_or_err(python, function)?;
                disabled_type.setattr(CStr::from_ptr(method.ml_name).to_string_lossy().as_ref(), function)?;
            }
        }
        disabled::SINGLETON.store(singleton.clone().into_ptr(), Relaxed);
        module.add("DISABLED", singleton)?;
        module.add("DisabledContext", &disabled_type)?;
        // What the interpreter keeps of these: they live as long as the process.
        std::mem::forget((scope_type, context_type, disabled_type));
    }
    Ok(())
}

unsafe fn scope_type(python: Python<'_>, has_fast_methods: bool) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `set_up`.
    unsafe {
        let mut slots = vec![
            slot(ffi::Py_tp_members, leaked(members(std::mem::offset_of!(cell::Cell, call), None)).as_mut_ptr()),
            slot(ffi::Py_tp_dealloc, cell::dealloc as *mut c_void),
            slot(ffi::Py_tp_finalize, cell::finalize as *mut c_void),
            slot(ffi::Py_tp_traverse, cell::traverse as *mut c_void),
            slot(ffi::Py_tp_clear, cell::clear_references as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_doc, SCOPE_DOC.as_ptr().cast_mut()),
        ];
        if has_fast_methods {
            let methods = leaked(vec![
                ffi::PyMethodDef {
                    ml_name: c"__enter__".as_ptr(),
                    ml_meth: ffi::PyMethodDefPointer { PyCFunction: scope::enter_method },
                    ml_flags: ffi::METH_NOARGS,
                    ml_doc: ptr::null(),
                },
                ffi::PyMethodDef {
                    ml_name: c"__exit__".as_ptr(),
                    ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: scope::exit_method },
                    ml_flags: ffi::METH_FASTCALL,
                    ml_doc: ptr::null(),
                },
                ffi::PyMethodDef::zeroed(),
            ]);
            slots.push(slot(ffi::Py_tp_methods, methods.as_mut_ptr()));
        }
        let collected = ffi::Py_TPFLAGS_HAVE_GC;
        let class = make(python, c"kastor._native.Scope", size_of::<cell::Cell>(), collected, slots)?;
        if !has_fast_methods {
            let slots = vec![
                slot(
                    ffi::Py_tp_members,
                    leaked(members(std::mem::offset_of!(binding::Binding, call), None)).as_mut_ptr(),
                ),
                slot(ffi::Py_tp_dealloc, binding::dealloc as *mut c_void),
                slot(ffi::Py_tp_descr_get, binding::get as *mut c_void),
                slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            ];
            let size = size_of::<binding::Binding>();
            let binding_type = make(python, c"kastor._native._Binding", size, 0, slots)?;
            let binding = Bound::from_owned_ptr_or_err(python, binding::new(binding_type.as_ptr().cast()))?;
            class.setattr("__enter__", &binding)?;
            class.setattr("__exit__", &binding)?;
        }
        Ok(class)
    }
}

unsafe fn context_type(python: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let weak = std::mem::offset_of!(Context, weak_references);
    let methods = leaked(vec![
        method(c"time", context::time, c"time($self, name, /, **metadata)\n--\n\nA scope; the same as calling the context."),
        method(
            c"metric",
            metric::metric,
            c"metric($self, name, /, value, **metadata)\n--\n\nRecords an event under the current scope.",
        ),
        method(
            c"count",
            metric::count,
            c"count($self, name, /, increment=1, **labels)\n--\n\nAdds to a counter under the current scope.",
        ),
        method(
            c"gauge",
            metric::gauge,
            c"gauge($self, name, /, value, **labels)\n--\n\nSets a gauge under the current scope.",
        ),
        method(
            c"histogram",
            metric::histogram,
            c"histogram($self, name, /, value, **labels)\n--\n\nAdds a value to a distribution under the current scope.",
        ),
        ffi::PyMethodDef::zeroed(),
    ]);
    // SAFETY: as in `set_up`.
    unsafe {
        let slots = vec![
            slot(ffi::Py_tp_members, leaked(members(std::mem::offset_of!(Context, call), Some(weak))).as_mut_ptr()),
            slot(ffi::Py_tp_methods, methods.as_mut_ptr()),
            slot(ffi::Py_tp_getset, leaked(properties()).as_mut_ptr()),
            slot(ffi::Py_tp_dealloc, context::dealloc as *mut c_void),
            slot(ffi::Py_tp_traverse, context::traverse as *mut c_void),
            slot(ffi::Py_tp_clear, context::clear as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_doc, CONTEXT_DOC.as_ptr().cast_mut()),
        ];
        make(python, c"kastor._native.Context", size_of::<Context>(), ffi::Py_TPFLAGS_HAVE_GC, slots)
    }
}

/// `is_enabled`: hot code asks for it before it builds what is costly.
fn properties() -> Vec<ffi::PyGetSetDef> {
    vec![
        ffi::PyGetSetDef {
            name: c"is_enabled".as_ptr(),
            get: Some(context::is_enabled),
            set: None,
            doc: c"Whether events are taken at the moment.".as_ptr(),
            closure: ptr::null_mut(),
        },
        ffi::PyGetSetDef::default(),
    ]
}

unsafe fn disabled_type(python: Python<'_>, has_fast_methods: bool) -> PyResult<Bound<'_, PyAny>> {
    let mut methods = if has_fast_methods { disabled_with_methods() } else { Vec::new() };
    methods.retain(|method| !method.ml_name.is_null());
    for name in
        [c"metric", c"count", c"gauge", c"histogram", c"describe", c"set", c"event", c"link", c"fail", c"discard"]
    {
        methods.push(method(name, disabled::nothing, c"Does nothing."));
    }
    methods.push(method(c"time", disabled::time, c"time($self, name, /, **metadata)\n--\n\nThe context itself."));
    methods.push(method(c"attach", disabled::time, c"attach($self, traceparent, /)\n--\n\nThe context itself."));
    methods.push(method(c"carry", disabled::carry, c"carry($self, function, /)\n--\n\nThe function."));
    // SAFETY: the end of a list of methods; otherwise as in `set_up`.
    unsafe {
        methods.push(ffi::PyMethodDef::zeroed());
        let slots = vec![
            slot(ffi::Py_tp_members, leaked(members(std::mem::offset_of!(Disabled, call), None)).as_mut_ptr()),
            slot(ffi::Py_tp_methods, leaked(methods).as_mut_ptr()),
            slot(ffi::Py_tp_dealloc, disabled::dealloc as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_doc, DISABLED_DOC.as_ptr().cast_mut()),
        ];
        make(python, c"kastor._native.DisabledContext", size_of::<Disabled>(), 0, slots)
    }
}

/// `__enter__` and `__exit__` of the disabled context.
fn disabled_with_methods() -> Vec<ffi::PyMethodDef> {
    let fast = |name: &'static CStr, function| ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: function },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: ptr::null(),
    };
    vec![fast(c"__enter__", disabled::enter), fast(c"__exit__", disabled::exit), ffi::PyMethodDef::zeroed()]
}

const SCOPE_DOC: &CStr = c"A scope: enter it with `with`, or decorate a function with it.";
const CONTEXT_DOC: &CStr = c"An enabled telemetry context: `with tele(\"name\", key=value): ...`";
const DISABLED_DOC: &CStr = c"The disabled telemetry context: the same interface, and nothing behind it.";

fn method(name: &'static CStr, function: FastWithKeywords, doc: &'static CStr) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }
}

/// Where instances have their vectorcall function, and their weak references.
fn members(call: usize, weak: Option<usize>) -> Vec<ffi::PyMemberDef> {
    let member = |name: *const c_char, offset: usize| ffi::PyMemberDef {
        name,
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let mut all = vec![member(c"__vectorcalloffset__".as_ptr(), call)];
    all.extend(weak.map(|offset| member(c"__weaklistoffset__".as_ptr(), offset)));
    all.push(ffi::PyMemberDef::default());
    all
}

fn slot<T>(number: c_int, function: *mut T) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot: number, pfunc: function.cast() }
}

/// Types live as long as the process, and with them what describes them.
fn leaked<T>(all: Vec<T>) -> &'static mut [T] {
    Box::leak(all.into_boxed_slice())
}

unsafe fn make<'py>(
    python: Python<'py>,
    name: &'static CStr,
    bytes: usize,
    flags: std::ffi::c_ulong,
    mut slots: Vec<ffi::PyType_Slot>,
) -> PyResult<Bound<'py, PyAny>> {
    slots.push(ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() });
    let flags =
        flags | ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let bytes = c_int::try_from(bytes).map_err(|_| PyRuntimeError::new_err("a type is too large"))?;
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: bytes,
        itemsize: 0,
        flags: flags as std::ffi::c_uint,
        slots: leaked(slots).as_mut_ptr(),
    };
    // SAFETY: name and slots live as long as the process; each slot has the function that its number asks for.
    unsafe { Bound::from_owned_ptr_or_err(python, ffi::PyType_FromSpec(&raw mut spec)) }
}
