"""Makes tiny GGUF files, and what the libraries that they come from say of them.

Usage: make.py OUT      needs: pip install torch transformers tokenizers sentencepiece safetensors gguf

OUT/blocks.safetensors: for each format F of ggml, F.bytes (random blocks) and F.values (what ggml's package `gguf` decodes).
OUT/llama.gguf, OUT/llama.safetensors: a llama with a byte-level BPE vocabulary (pre-tokenizer smollm), and its logits, loss
and gradients by transformers, as tests/checkpoints/make.py has them. OUT/llama.json: its tokenizer.json, and ids of texts.
OUT/pieces.gguf, OUT/pieces.safetensors, OUT/pieces.json: the same with biases, a head of its own, YaRN and a vocabulary of
SentencePiece, whose own ids stand in pieces.json."""

import io
import json
import pathlib
import sys

import gguf
import numpy
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import save_file

TEXTS = ["Hello world", "  two  spaces\n\n\ttabs \r\n", "don't I'LL 12345 3.14 x2y", "日本語 漢字", "émigré ﬁ ½ ² Ⅻ", "🙂👨‍👩‍👧",
         "<|im_start|>user\nhi<|im_end|>", "a\u200bb\u00a0c\u3000d", "١٢٣ ৪৫", "\x00\x01", " ", "", "the\n\n\nend"]
WORDS = "the quick brown fox jumps over the lazy dog and then some more of the other dogs jump over the foxes".split()
TYPES = gguf.GGMLQuantizationType
FORMATS = [TYPES.F32, TYPES.F16, TYPES.BF16, TYPES.Q4_0, TYPES.Q4_1, TYPES.Q5_0, TYPES.Q5_1, TYPES.Q8_0, TYPES.Q2_K,
           TYPES.Q3_K, TYPES.Q4_K, TYPES.Q5_K, TYPES.Q6_K]


def blocks(out):
    random, tensors = numpy.random.default_rng(1), {}
    for form in FORMATS:
        values, size = gguf.GGML_QUANT_SIZES[form]
        raw = random.integers(0, 256, (6, size), dtype=numpy.uint8)
        # Scales are float16 somewhere in a block: no byte makes a NaN or infinity of one.
        raw &= numpy.uint8(0xBB if form.name.startswith("Q") else 0x3F)
        tensors[form.name + ".bytes"] = torch.from_numpy(raw)
        tensors[form.name + ".values"] = torch.from_numpy(gguf.dequantize(raw, form).astype(numpy.float32))
    save_file(tensors, out / "blocks.safetensors")


def byte_level():
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    pre = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = tokenizers.decoders.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=sorted(pre.ByteLevel.alphabet()), show_progress=False,
                                             special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    made = json.loads(tokenizer.to_str())
    vocab = sorted(made["model"]["vocab"], key=made["model"]["vocab"].get)
    def write(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(vocab)
        writer.add_token_types([3, 3, 3] + [1] * (len(vocab) - 3))
        writer.add_token_merges([" ".join(merge) for merge in made["model"]["merges"]])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(False)
        writer.add_chat_template("{{ messages }}")
    return len(vocab), write, {"tokenizer": made, "texts": {text: tokenizer.encode(text).ids for text in TEXTS}}


def pieces():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([" ".join(WORDS)] * 3 + TEXTS), model_writer=model, vocab_size=400, model_type="bpe",
                                             byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    model = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    count = model.vocab_size()
    def kind(index):
        return 2 if model.is_unknown(index) else 3 if model.is_control(index) else 6 if model.is_byte(index) else 1
    def write(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list([model.id_to_piece(index) for index in range(count)])
        writer.add_token_scores([model.get_score(index) for index in range(count)])
        writer.add_token_types([kind(index) for index in range(count)])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
    # Special tokens have no text here: SentencePiece does not look for them. The empty text gets no space in front.
    texts = [text for text in TEXTS if text and "<|" not in text]
    return count, write, {"texts": {text: [1, *model.encode(text)] for text in texts}}


def in_pairs(rows, heads):
    """llama.cpp's order of the rows of queries and keys (convert_hf_to_gguf.py, `permute`)."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def llama(out, name, vocabulary, seed, options, scaling):
    vocab, write, words = vocabulary
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(vocab_size=vocab, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, **options)
    model = transformers.LlamaForCausalLM(config)
    writer = gguf.GGUFWriter(out / f"{name}.gguf", "llama")
    writer.add_name(f"tiny {name}")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    scaling(writer)
    write(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    matrices = [TYPES.Q8_0, TYPES.F16, TYPES.Q4_1, TYPES.BF16, TYPES.Q4_0, TYPES.F32]
    with torch.no_grad():
        for index, (theirs, parameter) in enumerate(model.named_parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.1)
            values = parameter.numpy()
            form = matrices[index % len(matrices)] if values.ndim == 2 else TYPES.F32
            heads = {"q_proj": 4, "k_proj": 2}.get(theirs.split(".")[-2])
            values = values if heads is None else in_pairs(values, heads)
            stored = gguf.quantize(values, form)
            # The model has what the file has.
            decoded = gguf.dequantize(stored, form).astype(numpy.float32)
            if heads is not None:
                width = decoded.shape[0] // heads
                decoded = decoded.reshape(heads, width // 2, 2, *decoded.shape[1:]).swapaxes(1, 2).reshape(decoded.shape)
            parameter.copy_(torch.from_numpy(numpy.ascontiguousarray(decoded)))
            writer.add_tensor(names.get_name(theirs, try_suffixes=(".weight", ".bias")), stored, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = model.double()
    tokens = torch.randint(0, vocab, (2, 20))
    logits = model(input_ids=tokens, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, vocab), tokens[:, 1:].reshape(-1))
    loss.backward()
    expected = {"tokens": tokens, "logits": logits.detach().float().contiguous(), "loss": loss.detach().reshape(1)}
    expected |= {"grad." + key: parameter.grad.float().contiguous() for key, parameter in model.named_parameters() if "proj" in key and ".0." in key}
    save_file(expected, out / f"{name}.safetensors")
    (out / f"{name}.json").write_text(json.dumps(words, ensure_ascii=True) + "\n")


def yarn(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(16)


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    blocks(out)
    rope = dict(rope_theta=500.0, rope_type="default")
    llama(out, "llama", byte_level(), 1, dict(rope_parameters=rope, tie_word_embeddings=True), lambda writer: None)
    rope = dict(rope_theta=500.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
    llama(out, "pieces", pieces(), 2, dict(rope_parameters=rope, attention_bias=True, mlp_bias=True), yarn)
