Feature: Transfers

  Background:
    Given Ada has 100
    And Grace has 0

  Scenario: A transfer
    When Ada transfers 70 to Grace
    Then Ada has a balance of 30
    And Grace has a balance of 70

  Scenario: More than there is
    When Ada transfers 170 to Grace, which is refused
    Then Ada has a balance of 100
    And Grace has a balance of 0

  Scenario Outline: To the bank
    When Ada transfers <amount> to the bank
    Then the bank has a balance of <balance>

    Examples:
      | amount | balance |
      | 1      | 1001    |
      | 100    | 1100    |
