"""AWS calls beside Bedrock's two model dialects: guardrails (billed by text units), knowledge bases, agents and
SageMaker endpoints, which report nothing: what they cost is estimated, mostly without a price.

Source: docs.aws.amazon.com/bedrock/latest/APIReference.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from gateway.call import Answer, Ask, Usage
from gateway.dialects.base import Dialect, add_units, add_usage, route
from gateway.dialects.bedrock_shapes import fold_counts, refuse
from gateway.reading import child, text

ENDPOINT = re.compile(r"/endpoints/([^/]+)/invocations")
MODEL_ARN = re.compile(rb'"modelArn"\s*:\s*"([^"\\]{1,256})"')
POLICIES = {
    "topicPolicyUnits": "guardrail_topic_units",
    "contentPolicyUnits": "guardrail_content_units",
    "wordPolicyUnits": "guardrail_word_units",
    "sensitiveInformationPolicyUnits": "guardrail_sensitive_information_units",
    "contextualGroundingPolicyUnits": "guardrail_grounding_units",
    "contentPolicyImageUnits": "guardrail_image_units",
    "automatedReasoningPolicyUnits": "guardrail_reasoning_units",
}


def read_ask(path: str, body: bytes) -> Ask:
    """SageMaker takes any bytes, so nothing here can be unreadable."""
    endpoint, arn = ENDPOINT.search(path), MODEL_ARN.search(body)
    model = unquote(endpoint[1]) if endpoint else arn[1].decode("utf-8", "replace") if arn else None
    return Ask(model=text(model), stream=path.endswith(("-stream", "Stream")), refers=True)


def fold(answer: Answer, data: Mapping[str, Any], provider: str) -> None:
    usage = child(data, "usage")
    add_units(answer.usage, **{ours: usage.get(theirs) for theirs, ours in POLICIES.items()})
    answer.finish_reason = text(data.get("action")) or answer.finish_reason
    for step in child(data, "trace", "trace").values():  # an agent calls models several times: this is one of them
        metadata = child(step, "modelInvocationOutput", "metadata")
        one = Usage()
        fold_counts(one, child(metadata, "usage"), suffix="s")
        add_usage(answer.usage, one)
        model = text(child(step, "modelInvocationInput").get("foundationModel"))
        answer.response_model = model or answer.response_model
    if "exception" in data:
        answer.error = text(child(data, "exception").get("type")) or "exception"


DIALECT = Dialect(
    name="aws_others",
    routes=(
        route("POST", r"/guardrail/[^/]+/version/[^/]+/apply$", "guardrail"),
        route("POST", r"/retrieveAndGenerate(Stream)?$", "invoke_agent"),
        route("POST", r"/agents/[^/]+/agentAliases/[^/]+/sessions/[^/]+/text$", "invoke_agent"),
        route("POST", r"/endpoints/[^/]+/invocations(-response-stream)?$", "text_completion"),
        route("POST", r"/knowledgebases/[^/]+/retrieve$", "retrieval"),
    ),
    read_ask=read_ask,
    may_matter=re.compile(rb'"(?:usage|exception|foundationModel)"\s*:'),
    fold=fold,
    refuse=refuse,
    signs_end=False,
)
