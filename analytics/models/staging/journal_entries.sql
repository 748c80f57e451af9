-- What is in the journal's segments, sealed or not: calls as the gateways recorded them, and corrections of calls. One row per close or correct record.
-- @call_id: Identifier of the call: UUIDv7
-- @request_id: Identifier of the request, shared by its attempts: UUIDv7
-- @attempt: Number of the attempt at the same request, from 1
-- @started_at: When the request arrived, UTC
-- @duration_ms: From the request's arrival to the end of the answer, milliseconds
-- @first_byte_ms: From the request's arrival to the answer's first byte, milliseconds
-- @key_id: Gateway key that called
-- @user_id: User or service that holds the key
-- @team_id: Team that the key belongs to
-- @client: Calling tool or SDK: claude-code, codex, gemini-cli, opencode, aider, …
-- @client_version: Version of the calling tool
-- @agent: Which of the tool's agents called, where it tells: main, subagent, compaction, side
-- @ticket_id: Ticket the call was for: the first of tickets; NULL when there is none
-- @tickets: All tickets the call was for; its cost is split equally between them; empty when there is none
-- @ticket_source: How the ticket is known, strongest first: claim, key, header, path, metadata, branch, task, none
-- @ticket_state: The ticket as judged against the synced tickets: known, unknown, closed, unchecked
-- @ticket_candidates: What else was named, or may be meant, as source:ticket; what was no evidence, as source:(reason)
-- @task_id: Unit of agent work (session, conversation or explicit task) that the call belongs to
-- @task_source: How the task is known: header, path, session, conversation, none
-- @session_id: Session identifier that the client sent
-- @repo: Repository that the client was working in
-- @branch: Branch that the client was working on
-- @purpose: Declared overhead: ci, eval, batch, research, support; NULL for normal work
-- @provider: Who serves and bills: openai, anthropic, gcp.gemini, … (OpenTelemetry names)
-- @upstream: Configured address that the call was forwarded to
-- @dialect: Wire format: openai_chat, openai_responses, anthropic_messages, gemini_generate, …
-- @operation: What was asked for: chat, embeddings, generate_content, text_completion, … (OpenTelemetry names)
-- @request_model: Model that was asked for
-- @response_model: Model that answered
-- @service_tier: Service tier of the answer, where the provider tells
-- @stream: Whether the answer was streamed
-- @status: HTTP status of the answer
-- @result: How the call ended: completed, client_cancelled, upstream_error, upstream_cut, stopped_by_budget, refused, interrupted (the gateway died)
-- @finish_reason: Why the model stopped, in the provider's word
-- @refusal: Code of the gateway's own refusal; of a call that a guard in shadow let through, the one that it would have had; else NULL when it was let through
-- @input_tokens: Input tokens as billed, cache reads and writes included
-- @output_tokens: Output tokens as billed, reasoning included
-- @cache_read_input_tokens: Part of input_tokens that was read from the provider's cache
-- @cache_write_input_tokens: Part of input_tokens that was written to the provider's cache
-- @cache_write_1h_input_tokens: Part of cache_write_input_tokens that was written for one hour
-- @reasoning_output_tokens: Part of output_tokens that was reasoning
-- @audio_input_tokens: Part of input_tokens that was audio
-- @audio_output_tokens: Part of output_tokens that was audio
-- @image_input_tokens: Part of input_tokens that was images
-- @image_output_tokens: Part of output_tokens that was images
-- @web_search_requests: Web searches that the provider billed
-- @other_units: Other billed units by name: search units, seconds, pages, images
-- @usage_source: Where the token counts come from: reported, estimated, partial (cut stream), none
-- @list_cost_usd: Cost at list price, USD; NULL when the call has no price (price_status unpriced), 0 when nothing was billed
-- @input_cost_usd: Part of list_cost_usd for uncached input, USD
-- @cache_read_cost_usd: Part of list_cost_usd for cache reads, USD
-- @cache_write_cost_usd: Part of list_cost_usd for cache writes, USD
-- @output_cost_usd: Part of list_cost_usd for output, USD
-- @other_cost_usd: Part of list_cost_usd for searches and other units, USD
-- @contracted_cost_usd: Cost after discounts, USD; NULL when the call has no price
-- @provider_cost_usd: Cost as the provider itself reported it, USD; NULL when it did not
-- @price_status: How the price was found: exact, alias, fallback, unpriced; NULL when nothing was billed
-- @price_id: Rate that was used
-- @price_book: Price book (snapshot) that was used
-- @held_usd: Amount reserved in budgets before the call, USD
-- @budget_action: What budgets did: none, warned, clamped, rerouted, stopped, blocked, shadow_blocked
-- @max_output_tokens: Most output tokens that the request allowed
-- @message_count: Messages in the request
-- @tool_count: Tools that the request offered
-- @tool_schema_tokens: Input tokens taken up by the tools' descriptions
-- @tool_calls: Tool calls in the answer
-- @edits: Tool calls in the answer that edit files
-- @human_turn: Whether the request's last message came from a person
-- @request_hash: Keyed hash of the canonical request
-- @prefix_hash: Keyed hash of the request's cacheable prefix
-- @prefix_tokens: Length of the cacheable prefix, tokens
-- @action_hash: Keyed hash of the last tool call: name, arguments and result
-- @request_bytes: Size of the request body as sent, bytes
-- @response_bytes: Size of the answer as received, bytes
-- @upstream_id: Identifier that the provider gave the answer
-- @gateway_id: Gateway process that served the call
-- @commit_sha: Head commit of the client's checkout, where it tells
-- @traceparent: W3C trace context that the client sent: version, trace, span, flags
-- @overhead_us: What the gateway took before it sent the call on, microseconds: without the body's coming, with waiting for a budget; first attempts only
-- @correction: Why a call is restated: usage, price, attribution; NULL for the call as it was first recorded
-- @corrected_at: When the correction was recorded, UTC; NULL for the call as it was first recorded
-- @recorded_at: When the gateway closed the record, UTC; of a correction, when it closed the record of the call
-- @segment: Journal segment that the record is in
-- @day: UTC day in whose folder the record is kept, normally that on which it was written; a filter on it reads only those days
WITH lines AS (
  -- A line torn by a crash becomes a row of NULLs. Records of kinds that are not known here are passed over.
  SELECT
    *,
    make_timestamp(started_us) AS started_at,
    make_timestamp(CASE e WHEN 'correct' THEN booked_us ELSE "at" END) AS recorded_at,
    CASE e WHEN 'correct' THEN cause END AS correction,
    CASE e WHEN 'correct' THEN make_timestamp("at") END AS corrected_at,
    parse_filename(filename, true) AS segment,
    -- Exact: BIGINT times DECIMAL is DECIMAL. An amount beyond DECIMAL(18,9) would hide all rows if it were an error.
    TRY_CAST(COLUMNS('(.*)_nano') * 0.000000001 AS DECIMAL(18,9)) AS '\1_usd'
  FROM read_json(
    'lake:journal/**', -- not *.jsonl: a pattern that ends in ** passes over the links that retired segments are
    format = 'newline_delimited', ignore_errors = true, filename = true,
    columns = {
      e: 'VARCHAR', "at": 'BIGINT', call_id: 'VARCHAR', request_id: 'VARCHAR', attempt: 'INTEGER',
      started_us: 'BIGINT', duration_ms: 'BIGINT', first_byte_ms: 'BIGINT', key_id: 'VARCHAR',
      user_id: 'VARCHAR', team_id: 'VARCHAR', client: 'VARCHAR', client_version: 'VARCHAR', agent: 'VARCHAR',
      ticket_id: 'VARCHAR', tickets: 'VARCHAR[]', ticket_source: 'VARCHAR', ticket_state: 'VARCHAR',
      ticket_candidates: 'VARCHAR[]', task_id: 'VARCHAR', task_source: 'VARCHAR', session_id: 'VARCHAR',
      repo: 'VARCHAR', branch: 'VARCHAR', purpose: 'VARCHAR', provider: 'VARCHAR', upstream: 'VARCHAR',
      dialect: 'VARCHAR', operation: 'VARCHAR', request_model: 'VARCHAR', response_model: 'VARCHAR',
      service_tier: 'VARCHAR', stream: 'BOOLEAN', status: 'INTEGER', result: 'VARCHAR', finish_reason: 'VARCHAR',
      refusal: 'VARCHAR', input_tokens: 'BIGINT', output_tokens: 'BIGINT', cache_read_input_tokens: 'BIGINT',
      cache_write_input_tokens: 'BIGINT', cache_write_1h_input_tokens: 'BIGINT',
      reasoning_output_tokens: 'BIGINT', audio_input_tokens: 'BIGINT', audio_output_tokens: 'BIGINT',
      image_input_tokens: 'BIGINT', image_output_tokens: 'BIGINT', web_search_requests: 'BIGINT',
      other_units: 'MAP(VARCHAR, DOUBLE)', usage_source: 'VARCHAR', list_cost_nano: 'BIGINT',
      input_cost_nano: 'BIGINT', cache_read_cost_nano: 'BIGINT', cache_write_cost_nano: 'BIGINT',
      output_cost_nano: 'BIGINT', other_cost_nano: 'BIGINT', contracted_cost_nano: 'BIGINT',
      provider_cost_nano: 'BIGINT', price_status: 'VARCHAR', price_id: 'VARCHAR', price_book: 'VARCHAR',
      held_nano: 'BIGINT', budget_action: 'VARCHAR', max_output_tokens: 'BIGINT', message_count: 'BIGINT',
      tool_count: 'BIGINT', tool_schema_tokens: 'BIGINT', tool_calls: 'BIGINT', edits: 'BIGINT',
      human_turn: 'BOOLEAN', request_hash: 'VARCHAR', prefix_hash: 'VARCHAR', prefix_tokens: 'BIGINT',
      action_hash: 'VARCHAR', request_bytes: 'BIGINT', response_bytes: 'BIGINT', upstream_id: 'VARCHAR',
      gateway_id: 'VARCHAR', commit_sha: 'VARCHAR', traceparent: 'VARCHAR', overhead_us: 'BIGINT',
      cause: 'VARCHAR', booked_us: 'BIGINT'
    }
  )
  WHERE suffix(filename, '.jsonl') AND e IN ('close', 'correct') AND call_id IS NOT NULL
)
SELECT
  call_id, request_id, attempt, started_at, duration_ms, first_byte_ms, key_id, user_id, team_id, client,
  client_version, agent,
  coalesce(ticket_id, tickets[1]) AS ticket_id,
  CASE WHEN len(tickets) > 0 THEN tickets WHEN ticket_id IS NULL THEN [] ELSE [ticket_id] END AS tickets,
  ticket_source, ticket_state,
  coalesce(ticket_candidates, []) AS ticket_candidates,
  task_id, task_source, session_id, repo, branch, purpose, provider, upstream, dialect, operation, request_model,
  response_model, service_tier, stream, status, result, finish_reason, refusal, input_tokens, output_tokens,
  cache_read_input_tokens, cache_write_input_tokens, cache_write_1h_input_tokens, reasoning_output_tokens,
  audio_input_tokens, audio_output_tokens, image_input_tokens, image_output_tokens, web_search_requests,
  other_units, usage_source,
  -- A call for which nothing was billed cost 0; one without a price has no cost.
  coalesce(
    COLUMNS('(list|input|cache_read|cache_write|output|other|contracted)_cost_usd'),
    CASE WHEN price_status IS NULL THEN 0.000000000 END
  ) AS '\0',
  provider_cost_usd, price_status, price_id, price_book, held_usd, budget_action, max_output_tokens, message_count,
  tool_count, tool_schema_tokens, tool_calls, edits, human_turn, request_hash, prefix_hash, prefix_tokens, action_hash,
  request_bytes, response_bytes, upstream_id, gateway_id, commit_sha, traceparent, overhead_us, correction, corrected_at,
  recorded_at, segment,
  CAST(make_timestamp("at") AS DATE) AS day
FROM lines
