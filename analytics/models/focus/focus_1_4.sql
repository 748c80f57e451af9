-- Charges as FOCUS 1.4 has them. One row per bill, day, upstream, model, meter, price, tier, team, ticket, purpose, repository and kind of evidence.
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
-- @HostProviderName: Whose infrastructure it runs on: the seller, as far as is known
-- @InvoiceId: NULL: rows are not tied to invoices
-- @InvoiceIssuerName: Who sends the bill
-- @ListCost: Cost at list price, USD
-- @ListUnitPrice: What a unit costs at list price, USD
-- @PricingCategory: Standard; Dynamic for the tiers flex and priority
-- @PricingQuantity: Tokens or requests
-- @PricingUnit: Tokens or Requests
-- @RegionId: NULL: not recorded
-- @RegionName: NULL: not recorded
-- @ResourceId: Model
-- @ResourceName: Model
-- @ResourceType: Model
-- @ServiceCategory: AI and Machine Learning
-- @ServiceName: Service of the seller
-- @ServiceProviderName: Who sells the service
-- @ServiceSubcategory: Generative AI
-- @SkuId: Provider, model and meter
-- @SkuMeter: What was metered: Input Tokens, Cached Input Tokens, Output Tokens, …
-- @SkuPriceDetails: Model, meter and tier, as JSON
-- @SkuPriceId: Rate that was used; unpriced without one
-- @SubAccountId: Team
-- @SubAccountName: Team
-- @SubAccountType: Team
-- @Tags: Ticket, team, purpose and repository, as JSON
-- @x_RowId: Hash of what the row is one per
-- @x_TicketId: Ticket; a call for several is divided equally
-- @x_TicketSource: How the ticket is known
-- @x_TicketState: The ticket as judged against the synced tickets
-- @x_Purpose: Declared overhead
-- @x_UsageSource: Where the counts come from: reported, estimated, partial, none
-- @x_PriceStatus: How the price was found; unpriced rows cost 0 because nobody knows
-- @x_Calls: Calls in the row
SELECT
  "BilledCost",
  "BillingAccountId",
  "BillingAccountName",
  "BillingAccountType",
  "BillingCurrency",
  "BillingPeriodEnd",
  "BillingPeriodStart",
  "ChargeCategory",
  "ChargeClass",
  "ChargeDescription",
  "ChargeFrequency",
  "ChargePeriodEnd",
  "ChargePeriodStart",
  "CommitmentDiscountStatus",
  "ConsumedQuantity",
  "ConsumedUnit",
  "ContractedCost",
  "ContractedUnitPrice",
  "EffectiveCost",
  seller AS "HostProviderName",
  "InvoiceId",
  "InvoiceIssuerName",
  "ListCost",
  "ListUnitPrice",
  "PricingCategory",
  "PricingQuantity",
  "PricingUnit",
  "RegionId",
  "RegionName",
  "ResourceId",
  "ResourceName",
  "ResourceType",
  "ServiceCategory",
  "ServiceName",
  seller AS "ServiceProviderName",
  "ServiceSubcategory",
  "SkuId",
  "SkuMeter",
  "SkuPriceDetails",
  "SkuPriceId",
  "SubAccountId",
  "SubAccountName",
  "SubAccountType",
  "Tags",
  "x_RowId",
  "x_TicketId",
  "x_TicketSource",
  "x_TicketState",
  "x_Purpose",
  "x_UsageSource",
  "x_PriceStatus",
  "x_Calls"
FROM focus_rows
