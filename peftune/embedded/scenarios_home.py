"""Dialogue scenarios around the house: lending, repairs, pets, cooking, neighbours."""

from peftune.embedded.grammar import Outcome, Scenario

HOME_SCENARIOS = (
    Scenario(
        "borrow",
        "[Could I borrow your {tool} on {day}?|Would you lend me your {tool} on {day}?"
        "|I need {an_tool} on {day}. Could I use yours?]",
        (
            "B: [What do you need it for?|Sure, what is the plan?|What are you up to?]",
            "A: [I want to help {c} at the {place}.|{c} and I have a little project."
            "|I promised {c} to bring one.]",
        ),
        "{a} [asks to borrow|wants to borrow|would like to borrow] {b}'s {tool} on {day}",
        (
            Outcome(
                (
                    "B: [No problem, but I need it back by {day2}.|Yes, just return it by {day2}."
                    "|Of course. Can I have it back by {day2}?]",
                    "A: [Sure, you will have it by {day2}.|I promise.|That works for me.]",
                ),
                "{b} agrees but [needs|wants] it back by {day2}.",
            ),
            Outcome(
                (
                    "B: [Sorry, it is broken.|I am afraid mine is broken.|It broke last month.]",
                    "A: [Oh, what a pity.|Too bad, I will ask someone else.|Never mind.]",
                ),
                "{b} [declines because it is broken|says no because it is broken].",
            ),
            Outcome(
                (
                    "B: [Sorry, I lent it to {d}.|{d} has it at the moment, sorry.]",
                    "A: [Then I will ask {d}.|Okay, I can call {d}.]",
                ),
                "{b} has lent it to {d}[, so {a} will ask {d}|, and {a} will ask {d}].",
            ),
        ),
    ),
    Scenario(
        "repair",
        "[My {appliance} stopped working on {day}.|My {appliance} has been broken since {day}."
        "|The {appliance} in my flat broke down on {day}.] [Can you help?|Could you look at it?]",
        (
            "B: [Have you tried to switch it off and on?|Does it make any sound?|How old is it?]",
            "A: [Yes, nothing happens.|It only makes a strange sound.|It is about {count} years old.]",
        ),
        "{a}'s {appliance} [has been broken since|stopped working on] {day}",
        (
            Outcome(
                (
                    "B: [I can come on {day2} at {time}.|Let me look at it on {day2} at {time}.]",
                    "A: [Great, see you on {day2}.|Wonderful, I will be at home.]",
                ),
                "{b} will [come and look at it|have a look at it] on {day2} at {time}.",
            ),
            Outcome(
                (
                    "B: [Call {c}. {c} fixed mine for {price}.|{c} can do it, I paid {price}.]",
                    "A: [I will call {c} today.|Good tip, I will ring {c}.]",
                ),
                "{b} [recommends|suggests] {c}, who charges {price}.",
            ),
            Outcome(
                (
                    "B: [That is not worth fixing. Buy a new one, they cost {price}."
                    "|Get a new one for {price}, it is cheaper.]",
                    "A: [You are right.|I think I will do that.|Okay, I will buy one.]",
                ),
                "{b} [advises|tells] {a_him} to buy a new one for {price}.",
            ),
        ),
    ),
    Scenario(
        "pet sitting",
        "[I am going to {city} on {day}. Could you look after my {pet} {petname}?"
        "|Could you take care of {petname}, my {pet}? I am off to {city} on {day}.]",
        (
            "B: [How long will you be away?|For how many days?|When will you be back?]",
            "A: [For {count} days.|I will be back in {count} days.|Only {count} days.]",
        ),
        "{a} asks {b} to [look after|take care of] {a_his} {pet} {petname} for {count} days",
        (
            Outcome(
                (
                    "B: [Gladly! Bring {petname} over at {time}.|Sure, come by at {time}.]",
                    "A: [You are the best.|Thank you, see you at {time}.]",
                ),
                "{b} agrees, and {a} will [come over|come by] at {time}.",
            ),
            Outcome(
                (
                    "B: [I can't, I am allergic.|Sorry, I am allergic to animals.]",
                    "A: [I forgot about that.|Oh, then I will ask {c}.]",
                ),
                "{b} [declines because {b_he} is allergic|can't because {b_he} is allergic].",
            ),
            Outcome(
                (
                    "B: [I can't, but {c} loves animals. Ask {c}.|I am busy. Maybe {c} can do it?]",
                    "A: [Good idea, I will call {c}.|I will write to {c} then.]",
                ),
                "{b} is [busy|not free] and suggests asking {c}.",
            ),
        ),
    ),
    Scenario(
        "recipe",
        "[I am making {dish} and I have no {ingredient}.|I want to cook {dish}, but I ran out of "
        "{ingredient}.|There is no {ingredient} left for my {dish}.] [Any ideas?|What can I do?]",
        (
            "B: [For how many people?|How many guests are coming?|Who is it for?]",
            "A: [For {count} people.|There are {count} of us.|It is for {c}.]",
        ),
        "{a} [is making|wants to make] {dish} but has no {ingredient}",
        (
            Outcome(
                (
                    "B: [Use {ingredient2} instead.|Just take {ingredient2}, it works well.]",
                    "A: [I have {ingredient2}! Thanks.|Great, I will try that.]",
                ),
                "{b} [suggests|recommends] using {ingredient2} instead.",
            ),
            Outcome(
                (
                    "B: [I have some. I will bring it at {time}.|I can bring you some at {time}.]",
                    "A: [You are an angel.|Perfect, thank you.]",
                ),
                "{b} will [bring some|bring {a_him} some] at {time}.",
            ),
            Outcome(
                (
                    "B: [Forget it and make {dish2}.|Why don't you make {dish2} instead?]",
                    "A: [Good, {dish2} it is.|All right, I will make {dish2}.]",
                ),
                "{b} [suggests making|tells {a_him} to make] {dish2} instead, and {a} agrees.",
            ),
        ),
    ),
    Scenario(
        "noise",
        "[I could not sleep because of your {noise} on {day}.|Your {noise} woke me up on {day}."
        "|The {noise} from your flat on {day} was really loud.]",
        (
            "B: [Oh no, what time was that?|Really? When was it?|I am sorry, how late was it?]",
            "A: [It was {time2}.|It began at {time2}.|Around {time2}.]",
        ),
        "{a} complains about the {noise} [from {b}'s flat|at {b}'s place] on {day}",
        (
            Outcome(
                (
                    "B: [I will stop at {time} from now on.|From now on I will finish by {time}.]",
                    "A: [Thank you, that would help.|I would be grateful.]",
                ),
                "{b} [promises to stop by|will stop by] {time} in future.",
            ),
            Outcome(
                (
                    "B: [That was not me, it was {c}.|It came from {c}'s flat, not from mine.]",
                    "A: [Oh, sorry. I will talk to {c}.|Then I must speak with {c}.]",
                ),
                "{b} says it was {c}, so {a} will talk to {c}.",
            ),
            Outcome(
                (
                    "B: [I am so sorry. Let me give you {an_gift}.|Sorry! I will bring you {an_gift}.]",
                    "A: [That is kind of you.|There is no need, but thanks.]",
                ),
                "{b} apologises and [offers {a_him}|will give {a_him}] {an_gift}.",
            ),
        ),
    ),
    Scenario(
        "chores",
        "[It is your turn to {chore}.|You promised to {chore}.|Did you forget to {chore}?]",
        (
            "B: [Already? I did it on {day}.|Are you sure? I thought it was {c}'s turn.]",
            "A: [Yes, it is on the list.|I am sure, look at the list.|Yes, {c} did it last time.]",
        ),
        "{a} [reminds|tells] {b} to {chore}",
        (
            Outcome(
                (
                    "B: [I will do it on {day2} at {time}.|Give me until {day2}, I start at {time}.]",
                    "A: [Fine, but don't forget.|Okay, {day2} is fine.]",
                ),
                "{b} will do it on {day2} at {time}.",
            ),
            Outcome(
                (
                    "B: [Can we swap? I would rather {chore2}.|Let me {chore2} instead.]",
                    "A: [Deal.|All right, we can swap.|Fine with me.]",
                ),
                "{b} [offers to|would rather] {chore2} instead, and {a} agrees.",
            ),
            Outcome(
                (
                    "B: [I can't, {i_excuse}.|Not today, {i_excuse}.]",
                    "A: [Okay, then I will do it.|Never mind, I will do it this time.]",
                ),
                "{b} {excuse}, so {a} will do it.",
            ),
        ),
    ),
    Scenario(
        "move furniture",
        "[Can you help me carry {an_goods} on {day}?|I bought {an_goods}. Could you help me carry it "
        "on {day}?]",
        (
            "B: [Where do you have to take it?|Where is it now?|Is it far?]",
            "A: [It is near the {place}.|I must take it from the {place} to my flat.]",
        ),
        "{a} [needs help|asks {b} for help] to carry {an_goods} on {day}",
        (
            Outcome(
                (
                    "B: [Sure, I will be there at {time}.|Yes, let us start at {time}.]",
                    "A: [Perfect, lunch is on me.|Great, see you at {time}.]",
                ),
                "{b} agrees to [help at|come at] {time}.",
            ),
            Outcome(
                (
                    "B: [I can't lift things, I hurt my back.|My back hurts, so I can't.]",
                    "A: [Get well soon.|Oh, take care of yourself.]",
                ),
                "{b} [declines|says no] because of {b_his} back.",
            ),
            Outcome(
                (
                    "B: [Yes, and {c} has a van. I will bring {c}.|I will come with {c} and a van.]",
                    "A: [Great, a van will help a lot.|Excellent, thank you both.]",
                ),
                "{b} will come with {c}, who has a van.",
            ),
        ),
    ),
    Scenario(
        "plant",
        "[My {plant} is losing its leaves.|The leaves of my {plant} are turning yellow."
        "|Something is wrong with my {plant}.] [What should I do?|Can you help?]",
        (
            "B: [How often do you water it?|When did you water it last?]",
            "A: [Every {count} days.|I water it every {count} days.]",
        ),
        "{a} asks for advice about {a_his} [sick|ailing] {plant}",
        (
            Outcome(
                (
                    "B: [That is too much. Water it only on {day}.|Less water! Only on {day}.]",
                    "A: [I will do that.|Okay, only on {day}.]",
                ),
                "{b} [advises|tells] {a_him} to water it only on {day}.",
            ),
            Outcome(
                (
                    "B: [It needs light. Put it by the window.|Move it to the window.]",
                    "A: [There is space there, thanks.|I will move it today.]",
                ),
                "{b} [advises|tells] {a_him} to move it to the window.",
            ),
            Outcome(
                (
                    "B: [Show it to {c} at the {place}.|Ask {c}, who works at the {place}.]",
                    "A: [I will go there on {day}.|Good, I will see {c} on {day}.]",
                ),
                "{b} [sends|refers] {a_him} to {c} at the {place}.",
            ),
        ),
    ),
    Scenario(
        "lost thing",
        "[I lost my {colour} {thing} on {day}.|I can't find my {colour} {thing}. I had it on {day}.]"
        " [Have you seen it?|Did you see it?]",
        (
            "B: [Where did you have it last?|Where were you that day?]",
            "A: [At the {place}, I think.|I was at the {place} with {c}.]",
        ),
        "{a} [has lost|can't find] {a_his} {colour} {thing}",
        (
            Outcome(
                (
                    "B: [Yes, I found it at the {place2}.|It was at the {place2}. I have it here.]",
                    "A: [What a relief!|Thank you so much!|Oh, I am so happy.]",
                ),
                "{b} [found it|has found it] at the {place2}.",
            ),
            Outcome(
                (
                    "B: [{c} picked it up.|I think {c} has it.]",
                    "A: [I will call {c} right away.|Good, I will ask {c}.]",
                ),
                "{b} says {c} has it, so {a} will [call|ask] {c}.",
            ),
            Outcome(
                (
                    "B: [No, sorry. Ask at the {place2}.|I have not. Try the {place2}.]",
                    "A: [I will go there at {time}.|Okay, I will try it at {time}.]",
                ),
                "{b} has not seen it and suggests [asking at|trying] the {place2}.",
            ),
        ),
    ),
)
