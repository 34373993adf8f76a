"""Every term with its meaning, once: for the guide, the command line, and the hints on pages."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Term:
    """name: the term, or several that are told together, by commas. meaning: in plain sentences, in
    Markdown. seen: how pages spell it where it is to have a hint, None for its name as it is;
    nothing where a page means other things by the word too."""

    name: str
    meaning: str
    seen: tuple[str, ...] | None = None

    @cached_property
    def spellings(self) -> tuple[str, ...]:
        """What a page has a hint for."""
        return (self.name,) if self.seen is None else self.seen

    @property
    def plain(self) -> str:
        """The meaning as text, without the marks of Markdown."""
        return self.meaning.replace("**", "").replace("*", "").replace("`", "")


TERMS = (
    Term(
        "block",
        "one decoder layer of the model; blocks are numbered from 0.",
    ),
    Term(
        "linear",
        "one linear layer (`nn.Linear`) inside a block.",
        seen=(),
    ),
    Term(
        "unit",
        "what gets one width: the linears that a server fuses, such as q/k/v, or a single"
        " linear; in a mixture of experts, all experts of a block. It is named "
        "BLOCK.KIND, such as `5.qkv`.",
    ),
    Term(
        "head",
        "of the model, its output layer, from the last hidden state to the vocabulary; an"
        " attention head is one of those inside a block, with a number from 0.",
        seen=(),
    ),
    Term(
        "width",
        "the bits of each weight of a unit: 2 to 8, or 16 for a unit that is not "
        "quantized; 4x64 is 4 bits in groups of 64, where those are not the run's own.",
        seen=(),
    ),
    Term(
        "low and rescue width",
        "what `--bits` and `--rescue-bits` set, 4 and 8 unless given.",
        seen=(),
    ),
    Term(
        "recipe",
        "a JSON file with the width of every unit, and how it was chosen.",
    ),
    Term(
        "reference",
        "the original 16-bit model; its weights are as stored, computed in the precision.",
        seen=("reference", "16-bit"),
    ),
    Term(
        "uniform",
        "the model with every unit at the low width, except units kept by `--keep-fp16`.",
    ),
    Term(
        "mixed",
        "the model of the run's recipe, which the run's checkpoint holds.",
    ),
    Term(
        "calibration",
        "the windows that one AWQ search reads; a **draw** is as many others, at random.",
    ),
    Term(
        "candidate",
        "the checkpoint that `compare` measures; it takes uniform's place in the tables.",
    ),
    Term(
        "baseline",
        "the model that others are held against, in `rank` and on the compare page; of the gate, "
        "an earlier run of the same model on the same tokens, and what changed since is **drift**.",
        seen=("baseline", "drift"),
    ),
    Term(
        "rank",
        "to put measured models in the order of their KL; `compare` measures candidates.",
        seen=(),
    ),
    Term(
        "dominated",
        "no smaller than another on the same tokens that loses no more, and worse in one.",
    ),
    Term(
        "release",
        "one of the runs of one reference, in the order of time.",
        seen=(),
    ),
    Term(
        "newly broken",
        "a block or unit whose KL surely rose from one release to the next, by 5% or more of all "
        "that was lost before; a token whose likeliest next token was the reference's and is not "
        "any more. **Mended** is the other way round.",
        seen=("newly broken", "mended"),
    ),
    Term(
        "precision",
        "what the products in blocks are computed in: float32 on the CPU, tf32 on CUDA.",
        seen=(),
    ),
    Term(
        "noise floor",
        "KL of the reference against itself at higher precision; damage below is noise.",
        seen=("noise floor", "below the noise floor"),
    ),
    Term(
        "place",
        "the embeddings or the head, where a candidate may differ from its reference "
        "outside the blocks.",
        seen=(),
    ),
    Term(
        "weight group",
        "input channels of one output that share a scale; its **error** is ‖ΔW_g‖ over the "
        "larger of ‖W_g‖ and the root mean square of all ‖W_g‖ of its linear.",
    ),
    Term(
        "code",
        "the integer that is stored for a weight; **saturated** where it is the least or the "
        "largest that its width has.",
        seen=(),
    ),
    Term(
        "clip",
        "the largest weight of a group that AWQ keeps, once scaled; larger ones are **cut**.",
        seen=(),
    ),
    Term(
        "scaling",
        "a vector of scales that AWQ tries on a group of linears, one for each ratio.",
        seen=(),
    ),
    Term(
        "window",
        "`--seq-len` tokens of the text; all but the first are scored. Windows do not overlap.",
    ),
    Term(
        "perplexity, PPL",
        "the exponential of the mean negative log-likelihood of a token: the lower, the "
        "better a model predicts the text.",
        seen=("perplexity", "PPL"),
    ),
    Term(
        "PPL ratio",
        "a model's perplexity divided by the reference's: 1 is as good as the reference.",
    ),
    Term(
        "KL",
        "KL(reference ‖ model) over the whole vocabulary, the mean over tokens, in nats a token.",
    ),
    Term(
        "nat",
        "what KL is counted in: 1 nat is 1.44 bits.",
        seen=("nats",),
    ),
    Term(
        "p99.9",
        "of the KL: what one token in a thousand exceeds.",
    ),
    Term(
        "damage",
        "what quantization costs: the KL, and the ΔPPL, of what is quantized.",
    ),
    Term(
        "ΔPPL",
        "a model's perplexity minus the reference's.",
    ),
    Term(
        "Δp",
        "the probability that a model gives the token which is there (the right token) minus the "
        "one that the reference gives it: as a mean, and as a root mean square (RMS), as "
        "llama.cpp prints them.",
    ),
    Term(
        "same top token",
        "the share of the scored tokens whose likeliest token is the reference's. The "
        "likeliest token of all others *changed*.",
        seen=("same top token", "likeliest token"),
    ),
    Term(
        "interval",
        "two numbers in brackets: 95%, by a bootstrap over windows; differences are "
        "paired by token.",
        seen=("95%",),
    ),
    Term(
        "view",
        "which blocks are quantized while a block is judged, by one of the next three.",
        seen=(),
    ),
    Term(
        "isolated",
        'only this block (in pages and tables "alone").',
        seen=("isolated", "alone"),
    ),
    Term(
        "cumulative",
        'block 0 up to this block ("up to here").',
        seen=("cumulative", "up to here"),
    ),
    Term(
        "restored",
        'every block but this one ("if restored").',
        seen=("restored", "if restored"),
    ),
    Term(
        "additivity",
        "the sum of all blocks' isolated KL, divided by the KL of uniform.",
    ),
    Term(
        "spike, flagged",
        "a block whose isolated damage stands out from the other blocks' is flagged.",
        seen=("flagged", "stands out", "stand out"),
    ),
    Term(
        "z",
        "how far a block's log KL is above the blocks' median, in robust standard deviations.",
    ),
    Term(
        "SQNR",
        "the power of an activation over the power of its error, in decibels: less is worse.",
    ),
    Term(
        "kurtosis",
        "how far the largest values are above the rest: 3 for a normal distribution, more"
        " with outliers.",
    ),
    Term(
        "Spearman",
        "how alike two orders are: 1 is the same order, 0 none.",
    ),
    Term(
        "exact, estimated",
        "a unit's KL as it was measured, or from one gradient of all units.",
        seen=(),
    ),
    Term(
        "promotion",
        "a set of units of a flagged block, tried at the rescue width; one set is chosen.",
        seen=("promotion", "promoted"),
    ),
    Term(
        "recovered",
        "the share of uniform's KL that is given back: 1 − KL of mixed / KL of uniform.",
        seen=("recovered", "give back", "gives back", "given back"),
    ),
    Term(
        "bits a weight",
        "what a weight of the units takes on disk, scales and zero points counted.",
    ),
    Term(
        "task",
        "an evaluation that lm-eval runs, or a group of them: samples with a score each.",
    ),
    Term(
        "sample",
        "one document of a task with its prompt and target. It is *worse* or *better* where a "
        "model scores less or more on it than the reference; what turned is paired with what it "
        "was.",
        seen=(),
    ),
    Term(
        "trial",
        "a further measurement of other recipes, with a finished run's searches and texts.",
        seen=(),
    ),
    Term(
        "study",
        "a question asked of a finished run and answered by measurement; the answer stays"
        " beside it.",
        seen=(),
    ),
    Term(
        "cause",
        "a head, channel, weight group, step of AWQ or calibration text that surely does "
        "a fifth of a block's damage, as `why` measures it.",
        seen=(),
    ),
    Term(
        "alternative",
        "another way to quantize: one block (`probe`), or the model (`alternatives`).",
        seen=(),
    ),
    Term(
        "refuses",
        "a block that is flagged with its linears' weights and inputs at int8 refuses "
        "int8 activations; one that the run flagged refuses weights at the low width. A "
        "reader that ends with an error instead of loading a checkpoint refuses it.",
        seen=(),
    ),
    Term(
        "proof",
        "the checkpoint, loaded from disk by another process and held against the recipe.",
    ),
    Term(
        "record",
        "`run.json`, what was asked, how far it is, and its **headline**, the model's numbers.",
        seen=(),
    ),
    Term(
        "notes",
        "what people say of a run: a name, tags, notes, and whether it is **archived**, which "
        "leaves it out of lists that do not ask for it; kept in `notes.json`.",
        seen=(),
    ),
    Term(
        "catalogue",
        "what the files of a model hold, from their headers, read once when it is opened.",
        seen=(),
    ),
    Term(
        "gate",
        "holds a finished run to a policy: pass, fail or inconclusive. A run that passes "
        "may ship, one that fails may not; else it is undecided.",
        seen=("release gate",),
    ),
    Term(
        "policy",
        "the limits that a run is held to, a TOML file; a run's own is the `policy.toml` "
        "beside it.",
    ),
    Term(
        "evidence",
        "what the gate knows of a run: findings, each a number with its interval, or missing.",
        seen=(),
    ),
    Term(
        "bundle",
        "the reports of several runs as a directory of plain files, with a list of them.",
        seen=(),
    ),
    Term(
        "figure",
        "a chart of the pages as Python has it, by its name.",
        seen=(),
    ),
)
