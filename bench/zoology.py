"""Tokens a second of Zoology's own attention model on its own MQAR data, on this CPU.

usage: ZOOLOGY_CHECKOUT=DIR zoology.py     (a checkout of HazyResearch/zoology)

The setting of arXiv 2312.04927, Figure 2: D 64, two layers without MLP, one head, learned positions,
T 64, 4 pairs, vocabulary 8192, batch 512. Zoology's model returns hidden states; its head is the tied
embedding. Prints one JSON line.
"""

import functools
import json
import os
import sys
import time

import torch

sys.path.insert(0, os.environ["ZOOLOGY_CHECKOUT"])
import zoology.model as model_file
from zoology.config import DataConfig, ModelConfig
from zoology.data.multiquery_ar import MQARConfig
from zoology.data.utils import prepare_data

LENGTH, PAIRS, BATCH, WIDTH, VOCAB, WARM, TIMED = 64, 4, 512, 64, 8192, 2, 4

torch.set_num_threads(2)
# The model's embedding is placed on a CUDA device by default.
embeddings = model_file.TokenEmbeddings
embeddings.__init__ = functools.partialmethod(embeddings.__init__, device="cpu")

data = dict(vocab_size=VOCAB, input_seq_len=LENGTH, num_kv_pairs=PAIRS, random_non_queries=False)
train, _ = prepare_data(DataConfig(
    train_configs=[MQARConfig(num_examples=BATCH * (WARM + TIMED), **data)],
    test_configs=[MQARConfig(num_examples=BATCH, **data)],
    batch_size=BATCH,
))
model = model_file.LanguageModel(ModelConfig(
    d_model=WIDTH, n_layers=2, block_type="TransformerBlock",
    max_position_embeddings=LENGTH, vocab_size=VOCAB,
    sequence_mixer=dict(name="zoology.mixers.attention.MHA", kwargs=dict(dropout=0.1, num_heads=1)),
    state_mixer=dict(name="torch.nn.Identity", kwargs={}),
))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
start = None
for step, (inputs, targets, _) in enumerate(train):
    if step == WARM:
        start = time.perf_counter()
    if step == WARM + TIMED:
        break
    logits = model(inputs)
    if logits.shape[-1] == WIDTH:
        logits = logits @ model.backbone.embeddings.word_embeddings.weight.T
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
seconds = (time.perf_counter() - start) / TIMED
print(json.dumps({"peer": "zoology", "tokens_per_second": round(BATCH * LENGTH / seconds)}))
