"""A bertlab encoder and its heads for transformers: `AutoModel….from_pretrained(folder,
trust_remote_code=True)`.

Needs torch and transformers alone. The encoder is BERT's (Devlin et al. 2019) with the later options that
config.json names; heads compute what transformers' BertFor… classes of the same tasks do, on the encoder's
own pooling (`pooling`: first token, mean or maximum).

Differs: `position_ids`, `inputs_embeds`, `output_attentions` and `output_hidden_states` are not taken.

Legend: B batch, T tokens, D width, V vocabulary, C classes.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    NextSentencePredictorOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import ModelOutput

from bertlab.models.bert import Attention, Bert, BertEncoder, UnitNorm


class BertlabConfig(PretrainedConfig):
    """The encoder's options, each with its meaning in `Bert`, and what heads need beside them."""

    model_type = "bertlab"

    def __init__(
        self,
        classifier_dropout: float = 0.1,
        pad_token_id: int = 0,
        logit_softcap: float | None = None,
        head_kind: str = "",
        **given: Any,
    ) -> None:
        options = {option.name: given.pop(option.name, option.default) for option in fields(Bert)}
        super().__init__(**given)
        for name, value in options.items():
            setattr(self, name, value)
        self.classifier_dropout, self.pad_token_id, self.logit_softcap = (
            classifier_dropout,
            pad_token_id,
            logit_softcap,
        )
        self.head_kind = head_kind  # of pretraining: "ReplacedTokens", or "" for masked tokens and pairs


class BertlabPreTrainedModel(PreTrainedModel):
    """An encoder; its head is the derived class's."""

    config_class = BertlabConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        options = Bert(**{option.name: getattr(config, option.name) for option in fields(Bert)})
        self.encoder = BertEncoder(options, config.vocab_size, config.pad_token_id)

    def get_input_embeddings(self) -> nn.Module:
        """Those of tokens."""
        return self.encoder.token

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Other ones."""
        self.encoder.replace_embedding(value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights where a checkpoint lacks them; and the encoder's fixed tables, which are in none."""
        if isinstance(module, BertEncoder):
            with torch.device("cpu"):
                made = BertEncoder(module.config, 1, 0)
            for name, table in made.named_buffers():
                module.get_buffer(name).copy_(table)
        elif isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.reset_parameters()
        elif isinstance(module, TokenHead):
            nn.init.zeros_(module.bias)
        elif isinstance(module, Attention) and module.gate is not None:
            nn.init.zeros_(module.gate)
        elif isinstance(module, UnitNorm) and module.gain is not None and module.first_gain is not None:
            nn.init.constant_(module.gain, module.first_gain)

    def read(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        pooled_only: bool = False,
    ) -> Tensor:
        """Hidden states (B, T, D); `pooled_only`: of the tokens that pooling reads."""
        segments = token_type_ids if self.encoder.takes_segments else None
        hidden: Tensor = self.encoder(input_ids, segments, attention_mask, pooled_only)
        return hidden

    def pooled(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> Tensor:
        """One vector a row (B, D)."""
        return self.encoder.pool(
            self.read(input_ids, attention_mask, token_type_ids, self.encoder.pools_first_alone),
            attention_mask,
        )


def _given(output: ModelOutput, return_dict: bool | None) -> Any:
    return output.to_tuple() if return_dict is False else output


def _cross_entropy(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    """Mean nats over labels that are not -100, of logits (…, C)."""
    return None if labels is None else F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _detection_loss(logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Mean nats over real tokens."""
    nats = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return nats.mean() if attention_mask is None else nats[attention_mask.bool()].mean()


# --- the encoder alone ----------------------------------------------------------------------------
class BertlabModel(BertlabPreTrainedModel):
    """Hidden states, and one vector a row as the run pooled them."""

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`last_hidden_state (B, T, D)`, `pooler_output (B, D)`."""
        hidden = self.read(input_ids, attention_mask, token_type_ids)
        pooled = self.encoder.pool(hidden, attention_mask)
        return _given(BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled), return_dict)


# --- heads on one vector a row --------------------------------------------------------------------
class BertlabForSequenceClassification(BertlabPreTrainedModel):
    """Classes, one or several (`problem_type`), or a number."""

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.encoder.hidden_size, config.num_labels or 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`logits (B, C)`; of a regression (B, 1), in the unit of its data."""
        logits = self.classifier(self.dropout(self.pooled(input_ids, attention_mask, token_type_ids)))
        if labels is not None and self.config.problem_type == "regression":
            loss: Tensor | None = F.mse_loss(logits.flatten(), labels.flatten().to(logits.dtype))
        elif labels is not None and self.config.problem_type == "multi_label_classification":
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        else:
            loss = _cross_entropy(logits, labels)
        return _given(SequenceClassifierOutput(loss=loss, logits=logits), return_dict)


class BertlabForMultipleChoice(BertlabPreTrainedModel):
    """A score for each choice of a question."""

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.encoder.hidden_size, 1)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Inputs (B, C, T), `logits (B, C)`."""
        mask, segments = (
            None if given is None else given.flatten(0, 1) for given in (attention_mask, token_type_ids)
        )
        logits = self.classifier(self.dropout(self.pooled(input_ids.flatten(0, 1), mask, segments))).view(
            input_ids.shape[:2]
        )
        return _given(
            MultipleChoiceModelOutput(loss=_cross_entropy(logits, labels), logits=logits), return_dict
        )


class BertlabForNextSentencePrediction(BertlabPreTrainedModel):
    """Does the second text follow the first (class 0)?"""

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        self.cls = nn.ModuleDict({"seq_relationship": nn.Linear(self.encoder.hidden_size, 2)})
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`logits (B, 2)`."""
        logits = self.cls["seq_relationship"](self.pooled(input_ids, attention_mask, token_type_ids))
        return _given(
            NextSentencePredictorOutput(loss=_cross_entropy(logits, labels), logits=logits), return_dict
        )


# --- heads on every token -------------------------------------------------------------------------
class BertlabForTokenClassification(BertlabPreTrainedModel):
    """A class for each token."""

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.encoder.hidden_size, config.num_labels or 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`logits (B, T, C)`."""
        logits = self.classifier(self.dropout(self.read(input_ids, attention_mask, token_type_ids)))
        return _given(TokenClassifierOutput(loss=_cross_entropy(logits, labels), logits=logits), return_dict)


class BertlabForQuestionAnswering(BertlabPreTrainedModel):
    """Where an answer starts and ends."""

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(self.encoder.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`start_logits` and `end_logits`, (B, T)."""
        start, end = self.qa_outputs(self.read(input_ids, attention_mask, token_type_ids)).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (F.cross_entropy(start, start_positions) + F.cross_entropy(end, end_positions)) / 2
        return _given(
            QuestionAnsweringModelOutput(loss=loss, start_logits=start, end_logits=end), return_dict
        )


class TokenHead(nn.Module):
    """Hidden states to logits over the vocabulary; the projection is the token embedding's matrix where
    `tie_embeddings` says so.

    With a soft-cap c, logits z are c tanh(z / c).
    """

    def __init__(self, encoder: BertEncoder, softcap: float | None) -> None:
        super().__init__()
        self.softcap = softcap
        rows, narrow = encoder.token_weight().shape
        self.transform = nn.ModuleDict(
            {
                "dense": nn.Linear(encoder.hidden_size, narrow),
                "LayerNorm": nn.LayerNorm(narrow, eps=encoder.norm_eps),
            }
        )
        self.decoder = None if encoder.tie_embeddings else nn.Linear(narrow, rows, bias=False)
        self.bias = nn.Parameter(torch.zeros(rows))

    def forward(self, encoder: BertEncoder, hidden: Tensor) -> Tensor:
        """(B, T, V)."""
        x = self.transform["LayerNorm"](encoder.head_activation(self.transform["dense"](hidden)))
        logits = F.linear(
            x, encoder.token_weight() if self.decoder is None else self.decoder.weight, self.bias
        )
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class BertlabForMaskedLM(BertlabPreTrainedModel):
    """Which token stood there."""

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        self.cls = nn.ModuleDict({"predictions": TokenHead(self.encoder, config.logit_softcap)})
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`logits (B, T, V)`."""
        logits = self.cls["predictions"](self.encoder, self.read(input_ids, attention_mask, token_type_ids))
        return _given(MaskedLMOutput(loss=_cross_entropy(logits, labels), logits=logits), return_dict)


@dataclass
class PreTrainingOutput(ModelOutput):
    """Of both tasks of BERT's pretraining."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None  # (B, T, V)
    seq_relationship_logits: Tensor | None = None  # (B, 2)


class DetectorHead(nn.Module):
    """Hidden states to a logit, positive where the token was put in another's place (Clark et al. 2020, §2).

    With GELU, whatever the encoder's activation.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.dense_prediction = nn.Linear(width, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T)."""
        logits: Tensor = self.dense_prediction(F.gelu(self.dense(hidden)))[..., 0]
        return logits


class BertlabForPreTraining(BertlabPreTrainedModel):
    """Which token stood there, and does the second text follow the first (class 0)? Or, where `head_kind` is
    ReplacedTokens: does this token stand in another's place?
    """

    def __init__(self, config: BertlabConfig) -> None:
        super().__init__(config)
        if config.head_kind == "ReplacedTokens":
            self.discriminator_predictions = DetectorHead(self.encoder.hidden_size)
        else:
            self.cls = nn.ModuleDict(
                {
                    "predictions": TokenHead(self.encoder, config.logit_softcap),
                    "seq_relationship": nn.Linear(self.encoder.hidden_size, 2),
                }
            )
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`prediction_logits (B, T, V)`, `seq_relationship_logits (B, 2)`; of replaced tokens `logits (B, T)`
        alone, whose labels are 0 and 1.
        """
        hidden = self.read(input_ids, attention_mask, token_type_ids)
        if self.config.head_kind == "ReplacedTokens":
            found = self.discriminator_predictions(hidden)
            loss = None if labels is None else _detection_loss(found, labels, attention_mask)
            return _given(TokenClassifierOutput(loss=loss, logits=found), return_dict)
        tokens = self.cls["predictions"](self.encoder, hidden)
        pairs = self.cls["seq_relationship"](self.encoder.pool(hidden, attention_mask))
        losses = [
            loss
            for loss in (_cross_entropy(tokens, labels), _cross_entropy(pairs, next_sentence_label))
            if loss is not None
        ]
        return _given(
            PreTrainingOutput(torch.stack(losses).sum() if losses else None, tokens, pairs), return_dict
        )
