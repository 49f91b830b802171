//! The C++ side, with the length of every buffer checked before its address is handed over. No other
//! module is unsafe.

/// Sizes of a model, as C++ has them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// V, token ids.
    pub vocab: usize,
    /// D, model width.
    pub d_model: usize,
    /// Blocks.
    pub layers: usize,
}

/// Settings of one optimiser step, as C++ has them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// Learning rate of the step.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub decay: f32,
    /// Factor on the gradients.
    pub clip: f32,
    /// 1 - beta1^steps.
    pub correction1: f32,
    /// 1 - beta2^steps.
    pub correction2: f32,
}

unsafe extern "C" {
    safe fn ema_parameters(sizes: Sizes) -> usize;
    safe fn ema_trace(sizes: Sizes, length: usize) -> usize;
    fn ema_forward(
        sizes: Sizes,
        params: *const f32,
        tokens: *const u32,
        length: usize,
        state: *mut f32,
        trace: *mut f32,
    );
    fn ema_logits(sizes: Sizes, params: *const f32, output: *const f32, logits: *mut f32);
    fn ema_score(sizes: Sizes, logits: *const f32, target: u32, best: *mut u32) -> f32;
    fn ema_score_backward(
        sizes: Sizes,
        params: *const f32,
        output: *const f32,
        logits: *mut f32,
        target: u32,
        weight: f32,
        grad_output: *mut f32,
        grads: *mut f32,
    );
    fn ema_backward(
        sizes: Sizes,
        params: *const f32,
        tokens: *const u32,
        length: usize,
        trace: *mut f32,
        grad: *mut f32,
        scratch: *mut f32,
        grads: *mut f32,
    );
    fn ema_adamw(
        settings: AdamW,
        values: *mut f32,
        grads: *const f32,
        first: *mut f32,
        second: *mut f32,
        count: usize,
    );
}

impl Sizes {
    /// Values of all parameters together.
    pub fn parameters(self) -> usize {
        ema_parameters(self)
    }

    /// Values of a trace of `length` tokens.
    pub fn trace(self, length: usize) -> usize {
        ema_trace(self, length)
    }

    /// Values of a row's state, `[layers, D]`.
    pub fn state(self) -> usize {
        self.layers * self.d_model
    }

    fn check(self, params: &[f32], tokens: &[u32], trace: &[f32]) {
        assert_eq!(params.len(), self.parameters(), "values of all parameters");
        assert_eq!(trace.len(), self.trace(tokens.len()), "values of the trace");
        let inside = tokens.iter().all(|&token| (token as usize) < self.vocab);
        assert!(inside, "tokens are below the vocabulary's size");
    }

    /// Reads a row's tokens `[T]` on from `state` `[layers, D]`; the last `T D` values of `trace` are
    /// what the head sees.
    ///
    /// # Panics
    /// At a buffer of another size, or a token outside the vocabulary.
    pub fn forward(self, params: &[f32], tokens: &[u32], state: &mut [f32], trace: &mut [f32]) {
        self.check(params, tokens, trace);
        assert_eq!(state.len(), self.state(), "values of a row's state");
        // SAFETY: every length was checked above, every token indexes the embedding, and the
        // mutable buffers are exclusive borrows.
        unsafe {
            ema_forward(
                self,
                params.as_ptr(),
                tokens.as_ptr(),
                tokens.len(),
                state.as_mut_ptr(),
                trace.as_mut_ptr(),
            );
        }
    }

    /// Logits `[V]` of one position's output `[D]`.
    ///
    /// # Panics
    /// At a buffer of another size.
    pub fn logits(self, params: &[f32], output: &[f32], logits: &mut [f32]) {
        assert_eq!(params.len(), self.parameters(), "values of all parameters");
        assert_eq!((output.len(), logits.len()), (self.d_model, self.vocab));
        // SAFETY: every length was checked above; `logits` is an exclusive borrow.
        unsafe {
            ema_logits(self, params.as_ptr(), output.as_ptr(), logits.as_mut_ptr());
        }
    }

    /// Most likely token, and negative log likelihood of `target` in nats.
    ///
    /// # Panics
    /// At a target or a number of logits that does not fit the vocabulary.
    pub fn score(self, logits: &[f32], target: u32) -> (u32, f32) {
        assert_eq!(logits.len(), self.vocab, "one logit a token");
        assert!((target as usize) < self.vocab, "a target in the vocabulary");
        let mut best = 0;
        // SAFETY: lengths and target were checked above; `best` is a local.
        let nll = unsafe { ema_score(self, logits.as_ptr(), target, &raw mut best) };
        (best, nll)
    }

    /// Adds the gradient of `weight` times the negative log likelihood of `target` to `grad_output`
    /// `[D]` and to the head's in `grads`; uses up the logits.
    ///
    /// # Panics
    /// At a buffer of another size or a target outside the vocabulary.
    #[allow(clippy::too_many_arguments)] // the C++ function's own
    pub fn score_backward(
        self,
        params: &[f32],
        output: &[f32],
        logits: &mut [f32],
        target: u32,
        weight: f32,
        grad_output: &mut [f32],
        grads: &mut [f32],
    ) {
        let count = self.parameters();
        assert_eq!((params.len(), grads.len()), (count, count));
        assert_eq!(
            (output.len(), grad_output.len()),
            (self.d_model, self.d_model)
        );
        assert_eq!(logits.len(), self.vocab, "one logit a token");
        assert!((target as usize) < self.vocab, "a target in the vocabulary");
        // SAFETY: every length and the target were checked above, and the mutable buffers are
        // exclusive borrows.
        unsafe {
            ema_score_backward(
                self,
                params.as_ptr(),
                output.as_ptr(),
                logits.as_mut_ptr(),
                target,
                weight,
                grad_output.as_mut_ptr(),
                grads.as_mut_ptr(),
            );
        }
    }

    /// Adds a row's gradients to `grads`, from the trace that [`Sizes::forward`] left for the same
    /// tokens; uses up `grad` `[T, D]`, the gradient of what the head sees. `scratch` is `[4, D]`.
    ///
    /// # Panics
    /// At a buffer of another size, or a token outside the vocabulary.
    pub fn backward(
        self,
        params: &[f32],
        tokens: &[u32],
        trace: &mut [f32],
        grad: &mut [f32],
        scratch: &mut [f32],
        grads: &mut [f32],
    ) {
        self.check(params, tokens, trace);
        assert_eq!(grads.len(), params.len(), "a gradient for each parameter");
        assert_eq!(grad.len(), tokens.len() * self.d_model);
        assert_eq!(scratch.len(), 4 * self.d_model);
        // SAFETY: every length was checked above, every token indexes the embedding, and the
        // mutable buffers are exclusive borrows.
        unsafe {
            ema_backward(
                self,
                params.as_ptr(),
                tokens.as_ptr(),
                tokens.len(),
                trace.as_mut_ptr(),
                grad.as_mut_ptr(),
                scratch.as_mut_ptr(),
                grads.as_mut_ptr(),
            );
        }
    }
}

impl AdamW {
    /// One step over a parameter and its moments.
    ///
    /// # Panics
    /// When the four differ in length.
    pub fn step(self, values: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32]) {
        let count = values.len();
        assert_eq!(
            (grads.len(), first.len(), second.len()),
            (count, count, count)
        );
        // SAFETY: the four lengths are the same, and the mutable ones are exclusive borrows.
        unsafe {
            ema_adamw(
                self,
                values.as_mut_ptr(),
                grads.as_ptr(),
                first.as_mut_ptr(),
                second.as_mut_ptr(),
                count,
            );
        }
    }
}
