-- What must be there is there, and is no empty text.
SELECT "x_RowId"
FROM exported
WHERE "PricingQuantity" IS NULL OR "ConsumedQuantity" IS NULL OR "ListUnitPrice" IS NULL OR "ContractedUnitPrice" IS NULL
  OR "BilledCost" IS NULL OR "ListCost" IS NULL OR "ContractedCost" IS NULL OR "EffectiveCost" IS NULL
  OR coalesce("SkuId", '') = '' OR coalesce("SkuPriceId", '') = '' OR coalesce("SkuMeter", '') = ''
  OR coalesce("BillingAccountId", '') = '' OR coalesce("InvoiceIssuerName", '') = '' OR coalesce("ServiceName", '') = ''
  OR coalesce("ChargeDescription", '') = '' OR "SubAccountId" = '' OR "x_TicketId" = ''
