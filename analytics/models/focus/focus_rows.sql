-- Charges as FOCUS wants them, in what its versions have in common. One row per bill, day, upstream, model, meter, price, tier, team, ticket, purpose, repository and kind of evidence.
-- @BilledCost: What is charged, USD
-- @BillingAccountId: Upstream that was called
-- @BillingAccountName: Upstream that was called
-- @BillingAccountType: Upstream
-- @BillingCurrency: USD
-- @BillingPeriodEnd: End of the month on whose bill it is, exclusive, UTC
-- @BillingPeriodStart: First day of that month, UTC
-- @ChargeCategory: Usage
-- @ChargeClass: Correction of an earlier month's bill; NULL for all else
-- @ChargeDescription: Model and meter
-- @ChargeFrequency: Usage-Based
-- @ChargePeriodEnd: End of the day, exclusive, UTC
-- @ChargePeriodStart: Day, UTC
-- @CommitmentDiscountStatus: NULL: no commitments
-- @ConsumedQuantity: Tokens or requests
-- @ConsumedUnit: Tokens or Requests
-- @ContractedCost: Cost after discounts, USD
-- @ContractedUnitPrice: What a unit costs after discounts, USD
-- @EffectiveCost: Cost after discounts, USD
-- @InvoiceId: NULL: rows are not tied to invoices
-- @InvoiceIssuerName: Who sends the bill
-- @ListCost: Cost at list price, USD
-- @ListUnitPrice: What a unit costs at list price, USD
-- @PricingCategory: Standard; Dynamic for the tiers flex and priority
-- @PricingCurrency: USD: prices are in what is billed
-- @PricingCurrencyContractedUnitPrice: ContractedUnitPrice
-- @PricingCurrencyEffectiveCost: EffectiveCost
-- @PricingCurrencyListUnitPrice: ListUnitPrice
-- @PricingQuantity: Tokens or requests
-- @PricingUnit: Tokens or Requests
-- @RegionId: NULL: not recorded
-- @RegionName: NULL: not recorded
-- @ResourceId: Model
-- @ResourceName: Model
-- @ResourceType: Model
-- @ServiceCategory: AI and Machine Learning
-- @ServiceName: Service of the seller
-- @ServiceSubcategory: Generative AI
-- @SkuId: Provider, model and meter
-- @SkuMeter: What was metered: Input Tokens, Cached Input Tokens, Output Tokens, …
-- @SkuPriceDetails: Model, meter and tier, as JSON
-- @SkuPriceId: Rate that was used, or unpriced, and the SkuId that it is of
-- @SubAccountId: Team
-- @SubAccountName: Team
-- @SubAccountType: Team
-- @Tags: Ticket, team, purpose and repository, as JSON
-- @x_RowId: Hash of what the row is one per
-- @x_TicketId: Ticket; a call for several is divided equally
-- @x_TicketSource: How the ticket is known
-- @x_TicketState: The ticket as judged against the synced tickets
-- @x_Outcome: What became of the ticket, as it is known now; NULL without one, and for one whose tracker was not read
-- @x_Purpose: Declared overhead
-- @x_UsageSource: Where the counts come from: reported, estimated, partial, none
-- @x_PriceStatus: How the price was found; unpriced rows cost 0 because nobody knows
-- @x_Calls: Calls in the row
-- @x_Synthetic: Whether all in this data folder was made up, as by `outlay demo`
-- @seller: Who sells the service, and sends the bill
-- @maker: Who made the model, by its name
-- Own columns begin with x_. What a unit costs is the cost by the quantity: price_id and tier are in the grain, so it is the rate.
WITH charges AS (
  SELECT
    billing_month, charge_day, is_correction, upstream, coalesce(provider, 'unknown') AS provider,
    coalesce(model, 'unknown') AS model, meter, unit, price_id, coalesce(service_tier, 'default') AS service_tier, team_id,
    ticket_id, purpose, repo, ticket_source, ticket_state, usage_source, coalesce(price_status, 'none') AS price_status,
    CASE WHEN is_correction THEN sign ELSE 1 END AS side,
    sum(quantity_nano) AS quantity_nano, sum(list_nano) AS list_nano, sum(contracted_nano) AS contracted_nano,
    sum(sign) AS calls
  FROM focus_charges
  GROUP BY ALL
),
outcomes AS (
  SELECT coalesce(name, ticket_id) AS ticket_id, outcome
  FROM ticket_names AS names
    RIGHT JOIN (SELECT ticket_id, any_value(outcome) AS outcome FROM task_days GROUP BY ticket_id) AS judged USING (ticket_id)
)
SELECT
  CAST(contracted_nano AS DECIMAL(38,0)) * 0.000000001 AS "BilledCost",
  coalesce(upstream, 'unknown') AS "BillingAccountId",
  coalesce(upstream, 'unknown') AS "BillingAccountName",
  'Upstream' AS "BillingAccountType",
  'USD' AS "BillingCurrency",
  CAST(billing_month + INTERVAL 1 MONTH AS TIMESTAMP) AS "BillingPeriodEnd",
  CAST(billing_month AS TIMESTAMP) AS "BillingPeriodStart",
  'Usage' AS "ChargeCategory",
  CASE WHEN is_correction THEN 'Correction' END AS "ChargeClass",
  concat(model, ', ', meter, CASE WHEN is_correction THEN ', corrected' END) AS "ChargeDescription",
  'Usage-Based' AS "ChargeFrequency",
  CAST(charge_day + INTERVAL 1 DAY AS TIMESTAMP) AS "ChargePeriodEnd",
  CAST(charge_day AS TIMESTAMP) AS "ChargePeriodStart",
  CAST(NULL AS VARCHAR) AS "CommitmentDiscountStatus",
  CAST(CAST(quantity_nano AS DECIMAL(38,0)) * 0.000000001 AS DECIMAL(28,9)) AS "ConsumedQuantity",
  unit AS "ConsumedUnit",
  CAST(contracted_nano AS DECIMAL(38,0)) * 0.000000001 AS "ContractedCost",
  CAST(contracted_nano / quantity_nano AS DECIMAL(28,15)) AS "ContractedUnitPrice",
  CAST(contracted_nano AS DECIMAL(38,0)) * 0.000000001 AS "EffectiveCost",
  CAST(NULL AS VARCHAR) AS "InvoiceId",
  coalesce(seller, provider) AS "InvoiceIssuerName",
  CAST(list_nano AS DECIMAL(38,0)) * 0.000000001 AS "ListCost",
  CAST(list_nano / quantity_nano AS DECIMAL(28,15)) AS "ListUnitPrice",
  CASE service_tier WHEN 'flex' THEN 'Dynamic' WHEN 'priority' THEN 'Dynamic' ELSE 'Standard' END AS "PricingCategory",
  'USD' AS "PricingCurrency",
  CAST(contracted_nano / quantity_nano AS DECIMAL(28,15)) AS "PricingCurrencyContractedUnitPrice",
  CAST(contracted_nano AS DECIMAL(38,0)) * 0.000000001 AS "PricingCurrencyEffectiveCost",
  CAST(list_nano / quantity_nano AS DECIMAL(28,15)) AS "PricingCurrencyListUnitPrice",
  CAST(CAST(quantity_nano AS DECIMAL(38,0)) * 0.000000001 AS DECIMAL(28,9)) AS "PricingQuantity",
  unit AS "PricingUnit",
  coalesce(seller, provider) AS seller,
  CASE
    WHEN regexp_matches(model, 'claude', 'i') THEN 'Anthropic'
    WHEN regexp_matches(model, '^(openai/)?(gpt|o[0-9]|chatgpt|text-embedding|whisper|tts|dall-e|sora)', 'i') THEN 'OpenAI'
    WHEN regexp_matches(model, 'gemini|gemma|imagen|veo', 'i') THEN 'Google'
    WHEN regexp_matches(model, 'llama', 'i') THEN 'Meta'
    WHEN regexp_matches(model, 'mistral|mixtral|codestral|magistral|devstral', 'i') THEN 'Mistral AI'
    WHEN regexp_matches(model, 'deepseek', 'i') THEN 'DeepSeek'
    WHEN regexp_matches(model, 'grok', 'i') THEN 'xAI'
    WHEN regexp_matches(model, 'qwen', 'i') THEN 'Alibaba'
    WHEN regexp_matches(model, 'kimi|moonshot', 'i') THEN 'Moonshot AI'
    WHEN regexp_matches(model, 'command|cohere', 'i') THEN 'Cohere'
    WHEN regexp_matches(model, 'nova|titan', 'i') THEN 'Amazon'
    ELSE coalesce(seller, provider)
  END AS maker,
  CAST(NULL AS VARCHAR) AS "RegionId",
  CAST(NULL AS VARCHAR) AS "RegionName",
  model AS "ResourceId",
  model AS "ResourceName",
  'Model' AS "ResourceType",
  'AI and Machine Learning' AS "ServiceCategory",
  coalesce(service, provider) AS "ServiceName",
  'Generative AI' AS "ServiceSubcategory",
  concat_ws('/', provider, model, meter) AS "SkuId",
  meter AS "SkuMeter",
  CAST(to_json({x_Model: model, x_TokenType: meter, x_ServiceTier: service_tier}) AS VARCHAR) AS "SkuPriceDetails",
  concat_ws('/', coalesce(price_id, 'unpriced'), provider, model, meter) AS "SkuPriceId",
  team_id AS "SubAccountId",
  team_id AS "SubAccountName",
  CASE WHEN team_id IS NOT NULL THEN 'Team' END AS "SubAccountType",
  CAST(json_merge_patch('{}', to_json({ticket: ticket_id, team: team_id, purpose: purpose, repo: repo})) AS VARCHAR) AS "Tags",
  md5(concat_ws(chr(31),
    billing_month, charge_day, side, coalesce(upstream, ''), provider, model, meter, coalesce(price_id, ''), service_tier,
    coalesce(team_id, ''), coalesce(ticket_id, ''), coalesce(purpose, ''), coalesce(repo, ''), coalesce(ticket_source, ''),
    coalesce(ticket_state, ''), coalesce(usage_source, ''), price_status, CASE WHEN ticket_id IS NULL THEN 0 ELSE 1 END
  )) AS "x_RowId",
  ticket_id AS "x_TicketId",
  ticket_source AS "x_TicketSource",
  ticket_state AS "x_TicketState",
  outcome AS "x_Outcome",
  purpose AS "x_Purpose",
  usage_source AS "x_UsageSource",
  price_status AS "x_PriceStatus",
  CAST(calls AS BIGINT) AS "x_Calls",
  (SELECT count(*) > 0 FROM glob('lake:SYNTHETIC')) AS "x_Synthetic"
FROM charges LEFT JOIN focus_sellers USING (provider) LEFT JOIN outcomes USING (ticket_id)
